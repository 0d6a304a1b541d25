//! The broker's reasons as return codes (§5.3.10).
//!
//! | reason | return code |
//! |---|---|
//! | success, no matching subscribers, granted | 0x00 accepted |
//! | what passes: server busy, unavailable or shutting down, quotas and rates | 0x01 congestion |
//! | not authorized, bad user name or password, banned | 0x80, EMQX's own "not authorized" |
//! | the session could not be opened or stored | 0x81, EMQX's own "failed session" |
//! | anything else: names, client ids, sizes, features that are switched off | 0x03 not supported |
//!
//! The specification says of congestion that the client tries again after T_WAIT; of the others, that it does not.
//! EMQX's codes are reserved ones: a client that knows only the specification reads them as a refusal.

use broker_core::{QoS, ReasonCode};

use crate::codec::ReturnCode;

/// EMQX's return code for what authorization or authentication refused.
pub(crate) const NOT_AUTHORIZED: ReturnCode = ReturnCode::Other(0x80);

/// EMQX's return code for a session that could not be opened.
pub(crate) const FAILED_SESSION: ReturnCode = ReturnCode::Other(0x81);

/// What a client is told of `reason`.
pub(crate) fn return_code(reason: ReasonCode) -> ReturnCode {
    match reason {
        reason if !reason.is_error() => ReturnCode::Accepted,
        ReasonCode::NotAuthorized
        | ReasonCode::BadUserNameOrPassword
        | ReasonCode::BadAuthenticationMethod
        | ReasonCode::Banned => NOT_AUTHORIZED,
        ReasonCode::ServerBusy
        | ReasonCode::ServerUnavailable
        | ReasonCode::ServerShuttingDown
        | ReasonCode::QuotaExceeded
        | ReasonCode::ReceiveMaximumExceeded
        | ReasonCode::MessageRateTooHigh
        | ReasonCode::ConnectionRateExceeded
        | ReasonCode::UseAnotherServer
        | ReasonCode::ServerMoved => ReturnCode::Congestion,
        ReasonCode::UnspecifiedError | ReasonCode::ImplementationSpecificError => FAILED_SESSION,
        _ => ReturnCode::NotSupported,
    }
}

/// Return code and granted quality of service of a SUBACK.
pub(crate) fn granted(reason: ReasonCode) -> (ReturnCode, QoS) {
    match QoS::new(reason as u8) {
        Some(qos) => (ReturnCode::Accepted, qos),
        None => (return_code(reason), QoS::AtMostOnce),
    }
}

/// Why a broker has ended a connection: a stable word for counters and logs.
pub(crate) fn word(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::SessionTakenOver => "takenover",
        ReasonCode::ServerShuttingDown => "server_shutting_down",
        ReasonCode::AdministrativeAction => "kicked",
        ReasonCode::NotAuthorized => "not_authorized",
        ReasonCode::ReceiveMaximumExceeded => "receive_maximum_exceeded",
        ReasonCode::QoSNotSupported => "qos_not_supported",
        ReasonCode::RetainNotSupported => "retain_not_supported",
        ReasonCode::PayloadFormatInvalid => "payload_format_invalid",
        _ => "closed_by_broker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_accepted() {
        for reason in (0..=0xFF).filter_map(ReasonCode::new) {
            let code = return_code(reason);
            assert_eq!(code == ReturnCode::Accepted, !reason.is_error(), "{reason:?}");
        }
        assert_eq!(
            granted(ReasonCode::GrantedQoS2),
            (ReturnCode::Accepted, QoS::ExactlyOnce)
        );
        assert_eq!(
            granted(ReasonCode::QuotaExceeded),
            (ReturnCode::Congestion, QoS::AtMostOnce)
        );
    }
}
