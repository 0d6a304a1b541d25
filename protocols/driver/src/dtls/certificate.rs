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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BufMut;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SigningKey};

    use super::*;
    use crate::{ClientAuth, DtlsSettings, dtls::DtlsServer};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const ECDSA_P256: u16 = 0x0403;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A certificate for `meter` that ends in this year.
    fn issue(authority: &Authority, year: i32) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "meter");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, authority).unwrap();
        (certificate.der().to_vec(), key)
    }

    fn server(authority: &Authority, client_auth: ClientAuth) -> Arc<DtlsServer> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("cert.pem"), authority.pem()).unwrap();
        std::fs::write(path("key.pem"), authority.key().serialize_pem()).unwrap();
        DtlsServer::load(&DtlsSettings {
            certificate: Some((path("cert.pem"), path("key.pem"))),
            ca_file: Some(path("cert.pem")),
            client_auth,
            psk: None,
            handshake_timeout: Duration::from_secs(1),
            handshakes_max: 1,
            idle_timeout: Duration::from_secs(1),
        })
        .unwrap()
    }

    fn message(chain: &[&[u8]]) -> Vec<u8> {
        let len: usize = chain.iter().map(|certificate| 3 + certificate.len()).sum();
        let mut body = Vec::new();
        body.put_uint(len as u64, 3);
        for certificate in chain {
            body.put_uint(certificate.len() as u64, 3);
            body.put_slice(certificate);
        }
        body
    }

    #[test]
    fn only_chains_that_end_at_the_authority_and_are_in_time_count() {
        let (known, stranger) = (authority(), authority());
        let server = server(&known, ClientAuth::Required);
        let verify = |body: &[u8]| verify_chain(server.clients.as_ref().unwrap(), NOW, body);
        let (good, _) = issue(&known, 2100);
        assert_eq!(verify(&message(&[&good])).unwrap().unwrap().as_ref(), &good[..]);
        let reason = |body: &[u8]| verify(body).unwrap_err().reason;
        assert_eq!(
            reason(&message(&[&issue(&known, 2026).0])),
            "bad_client_certificate"
        );
        assert_eq!(
            reason(&message(&[&issue(&stranger, 2100).0])),
            "bad_client_certificate"
        );
        assert_eq!(reason(&message(&[b"no certificate"])), "bad_client_certificate");
        assert_eq!(reason(&message(&[&good[..]; 9])), "long_certificate_chain");
        assert_eq!(reason(&message(&[])), "no_client_certificate");
        let mut cut = message(&[&good]);
        cut.pop();
        assert_eq!(reason(&cut), "malformed_handshake");
    }

    #[test]
    fn only_the_key_of_the_certificate_over_this_handshake_is_a_proof() {
        let authority = authority();
        let server = server(&authority, ClientAuth::Optional);
        let clients = server.clients.as_ref().unwrap();
        assert_eq!(verify_chain(clients, NOW, &message(&[])), Ok(None));
        let (certificate, key) = issue(&authority, 2100);
        let certificate = CertificateDer::from(certificate);
        let verify = |transcript: &[u8], scheme: u16, signature: &[u8]| {
            let mut body = scheme.to_be_bytes().to_vec();
            body.put_u16(signature.len() as u16);
            body.put_slice(signature);
            verify_possession(clients, &certificate, transcript, &body)
        };
        let signature = key.sign(b"transcript").unwrap();
        let info = verify(b"transcript", ECDSA_P256, &signature).unwrap();
        assert_eq!(info.common_name.as_deref(), Some("meter"));
        let other = issue(&authority, 2100).1.sign(b"transcript").unwrap();
        for (transcript, scheme, signature) in [
            (&b"another"[..], ECDSA_P256, &signature),
            (b"transcript", ECDSA_P256, &other),
            // RSA, and nothing that is known.
            (b"transcript", 0x0401, &signature),
            (b"transcript", 0xffff, &signature),
            (b"transcript", ECDSA_P256, &Vec::new()),
        ] {
            let refused = verify(transcript, scheme, signature).unwrap_err();
            assert_eq!(
                refused,
                Failure::new(Alert::DecryptError, "bad_certificate_verify")
            );
        }
    }
}
