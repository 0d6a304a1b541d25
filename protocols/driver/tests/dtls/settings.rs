//! Settings that cannot work.

use driver::{ClientAuth, TlsError};

use crate::setup::*;

#[test]
fn settings_are_checked() {
    let pki = Pki::new();
    let good = mixed_settings(&pki, &rcgen::PKCS_ECDSA_P256_SHA256);
    good.check().unwrap();

    let mut bad = psk_settings();
    bad.psk = None;
    assert!(matches!(bad.check(), Err(TlsError::NoCredentials)));
    let mut bad = psk_settings();
    bad.client_auth = ClientAuth::Required;
    assert!(matches!(bad.check(), Err(TlsError::ClientCertificatesWithoutOwn)));
    let mut bad = good.clone();
    (bad.client_auth, bad.ca_file) = (ClientAuth::Optional, None);
    assert!(matches!(bad.check(), Err(TlsError::NoAuthority)));
    let other = pki.issue("other", &rcgen::PKCS_ECDSA_P256_SHA256);
    let mut bad = good.clone();
    bad.certificate.as_mut().unwrap().1 = other.1;
    assert!(matches!(bad.check(), Err(TlsError::KeyMismatch { .. })));
    let mut bad = good.clone();
    bad.certificate.as_mut().unwrap().0 = pki.path("none.pem");
    assert!(matches!(bad.check(), Err(TlsError::Unreadable { .. })));
}
