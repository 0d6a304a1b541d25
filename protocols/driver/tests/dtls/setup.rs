//! Keys, certificates and settings of the tests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use driver::{ClientAuth, DtlsSettings, PskLookup, dtls::DtlsServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SignatureAlgorithm,
};
use tempfile::TempDir;

/// The key of the identity `sensor-7`.
pub(crate) const KEY: [u8; 16] = *b"0123456789abcdef";
pub(crate) const IDENTITY: &str = "sensor-7";

/// An authority, the server's certificate and a client's, in files.
pub(crate) struct Pki {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Pki {
            folder: TempDir::new().unwrap(),
            authority,
        };
        std::fs::write(pki.path("ca.pem"), pki.authority.pem()).unwrap();
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `name.pem` and `name.key` with a certificate for `name`.
    pub(crate) fn issue(&self, name: &str, algorithm: &'static SignatureAlgorithm) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let files = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

pub(crate) fn lookup() -> PskLookup {
    Arc::new(|identity| (identity == IDENTITY).then(|| KEY.to_vec()))
}

/// Pre-shared keys only.
pub(crate) fn psk_settings() -> DtlsSettings {
    DtlsSettings {
        certificate: None,
        ca_file: None,
        client_auth: ClientAuth::None,
        psk: Some(lookup()),
        handshake_timeout: Duration::from_secs(30),
        handshakes_max: 100,
        idle_timeout: Duration::from_secs(300),
    }
}

/// Pre-shared keys, and a certificate of the given kind.
pub(crate) fn mixed_settings(pki: &Pki, algorithm: &'static SignatureAlgorithm) -> DtlsSettings {
    DtlsSettings {
        certificate: Some(pki.issue("server", algorithm)),
        ca_file: Some(pki.path("ca.pem")),
        ..psk_settings()
    }
}

pub(crate) fn psk_server() -> Arc<DtlsServer> {
    DtlsServer::load(&psk_settings()).unwrap()
}
