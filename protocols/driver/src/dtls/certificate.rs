//! Client certificates: the chain, and the proof that the client has the key (RFC 5246 §7.4.6, §7.4.8).

use std::time::Duration;

use broker_core::{CertificateInfo, Timestamp};
use rustls::SignatureScheme;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    handshake::Failure,
    record::{Alert, Reader},
    server::ClientCertificates,
};
use crate::tls;

/// Certificates of one chain that are looked at.
const CHAIN_MAX: usize = 8;

/// Verifies what a Certificate message holds. `None`: the client has no certificate, and need not have one.
pub(super) fn verify_chain(
    clients: &ClientCertificates,
    now: Timestamp,
    body: &[u8],
) -> Result<Option<CertificateDer<'static>>, Failure> {
    let malformed = Failure::new(Alert::DecodeError, "malformed_handshake");
    let mut reader = Reader(body);
    let mut list = Reader(reader.vec24().ok_or(malformed)?);
    reader.end().ok_or(malformed)?;
    let mut chain = Vec::new();
    while !list.0.is_empty() {
        if chain.len() == CHAIN_MAX {
            return Err(Failure::new(Alert::BadCertificate, "long_certificate_chain"));
        }
        chain.push(CertificateDer::from(list.vec24().ok_or(malformed)?));
    }
    let Some((own, intermediates)) = chain.split_first() else {
        return match clients.required {
            true => Err(Failure::new(Alert::HandshakeFailure, "no_client_certificate")),
            false => Ok(None),
        };
    };
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
    clients
        .verifier
        .verify_client_cert(own, intermediates, now)
        .map_err(|_| Failure::new(Alert::BadCertificate, "bad_client_certificate"))?;
    Ok(Some(own.clone().into_owned()))
}

/// Verifies the signature of a CertificateVerify message over everything before it, and says whose certificate it is.
pub(super) fn verify_possession(
    clients: &ClientCertificates,
    certificate: &CertificateDer<'_>,
    transcript: &[u8],
    body: &[u8],
) -> Result<CertificateInfo, Failure> {
    let malformed = Failure::new(Alert::DecodeError, "malformed_handshake");
    let mut reader = Reader(body);
    let scheme = SignatureScheme::from(reader.u16().ok_or(malformed)?);
    let signature = reader.vec16().ok_or(malformed)?;
    reader.end().ok_or(malformed)?;
    let refused = Failure::new(Alert::DecryptError, "bad_certificate_verify");
    let known = clients
        .algorithms
        .mapping
        .iter()
        .find(|(known, _)| *known == scheme);
    let (_, algorithms) = known.ok_or(refused)?;
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| refused)?;
    // A scheme of TLS 1.2 does not name the curve: each may be the one.
    let is_signed = algorithms
        .iter()
        .any(|algorithm| parsed.verify_signature(*algorithm, transcript, signature).is_ok());
    match is_signed {
        true => tls::describe(certificate).ok_or(refused),
        false => Err(refused),
    }
}
