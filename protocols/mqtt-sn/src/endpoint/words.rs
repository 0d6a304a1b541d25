//! Under which words an endpoint's dropped datagrams are counted, besides those of
//! [`DecodeError::word`](crate::codec::DecodeError::word).

/// A PUBLISH of QoS −1 (§6.8), which the configuration forbids.
pub const QOS3_DISABLED: &str = "qos3_disabled";

/// A stranger's message that only a gateway sends.
pub const GATEWAY_MESSAGE: &str = "gateway_message";

/// A DISCONNECT with a duration of somebody who is not connected.
pub const SLEEP_OF_STRANGER: &str = "sleep_of_stranger";

/// A stranger who has been answered a moment ago.
pub const ANSWERED_BEFORE: &str = "answered_before";

/// A stranger who got no answer, because too many others did.
pub const TOO_MANY_ANSWERS: &str = "too_many_answers";

/// A SEARCHGW that finds too many others waiting for their answers, and too many that were answered at once.
pub const SEARCHERS_FULL: &str = "searchers_full";

/// Another gateway that uses this one's id.
pub const GATEWAY_ID_CONFLICT: &str = "gateway_id_conflict";
