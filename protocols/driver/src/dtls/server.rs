//! Settings become what a server needs for handshakes: files are read and checked.

use std::{fmt, sync::Arc, time::Duration};

use bytes::BufMut;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    server::danger::ClientCertVerifier,
    sign::{Signer, SigningKey},
};

use super::{
    crypto::{Exchange, SUITES, Suite},
    hello::ClientHello,
};
use crate::{ClientAuth, DtlsSettings, PskLookup, TlsError, TlsSettings, tls};

/// What the handshakes of a DTLS listener are made with. Made from [`DtlsSettings`]; another one can take its place
/// while the listener works.
pub struct DtlsServer {
    pub(super) certificate: Option<ServerCertificate>,
    pub(super) clients: Option<ClientCertificates>,
    pub(super) psk: Option<PskLookup>,
    pub(super) handshake_timeout: Duration,
    pub(super) handshakes_max: usize,
    pub(super) idle_timeout: Duration,
}

/// Who the server is.
pub(super) struct ServerCertificate {
    /// Body of the Certificate message (RFC 5246 §7.4.2).
    pub(super) message: Vec<u8>,
    key: Arc<dyn SigningKey>,
}

/// How client certificates are verified.
pub(super) struct ClientCertificates {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) required: bool,
    /// Body of the CertificateRequest message (RFC 5246 §7.4.4).
    pub(super) request: Vec<u8>,
}

impl DtlsServer {
    /// How long a client may be silent. Before its first data it has no longer than for a handshake: who only takes
    /// places has to go on taking them.
    pub(super) fn patience(&self, has_spoken: bool) -> Duration {
        if has_spoken {
            self.idle_timeout
        } else {
            self.idle_timeout.min(self.handshake_timeout)
        }
    }

    /// Reads the files and checks that they fit each other.
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn load(settings: &DtlsSettings) -> Result<Arc<DtlsServer>, TlsError> {
        if settings.certificate.is_none() && settings.psk.is_none() {
            return Err(TlsError::NoCredentials);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut certificate, mut clients) = (None, None);
        if let Some((certificate_file, key_file)) = &settings.certificate {
            let mut files = TlsSettings::new(certificate_file, key_file);
            files.ca_file = settings.ca_file.clone();
            files.client_auth = settings.client_auth;
            certificate = Some(server_certificate(&files, &provider)?);
            clients = client_certificates(&files, provider)?;
        } else if settings.client_auth != ClientAuth::None {
            return Err(TlsError::ClientCertificatesWithoutOwn);
        }
        Ok(Arc::new(DtlsServer {
            certificate,
            clients,
            psk: settings.psk.clone(),
            handshake_timeout: settings.handshake_timeout,
            handshakes_max: settings.handshakes_max,
            idle_timeout: settings.idle_timeout,
        }))
    }

    /// The first suite of the client's that both sides can do.
    pub(super) fn suite(&self, hello: &ClientHello<'_>) -> Option<&'static Suite> {
        let offered = hello
            .suites()
            .filter_map(|id| SUITES.iter().find(|suite| suite.id == id));
        for suite in offered {
            let possible = match suite.exchange {
                Exchange::Psk => self.psk.is_some(),
                Exchange::EcdheEcdsa | Exchange::EcdheRsa => {
                    hello.group().is_some() && self.signer(suite.exchange, hello).is_some()
                }
            };
            if possible {
                return Some(suite);
            }
        }
        None
    }

    /// Signs in a way that the client accepts, if the key is of the kind that the suites of `exchange` need.
    pub(super) fn signer(&self, exchange: Exchange, hello: &ClientHello<'_>) -> Option<Box<dyn Signer>> {
        let key = &self.certificate.as_ref()?.key;
        let fits = match key.algorithm() {
            SignatureAlgorithm::RSA => exchange == Exchange::EcdheRsa,
            // RFC 8422 §5.10: EdDSA goes with the ECDSA suites.
            SignatureAlgorithm::ECDSA | SignatureAlgorithm::ED25519 => exchange == Exchange::EcdheEcdsa,
            _ => false,
        };
        let schemes: Vec<_> = hello.schemes().map(SignatureScheme::from).collect();
        if fits { key.choose_scheme(&schemes) } else { None }
    }
}

impl fmt::Debug for DtlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsServer")
            .field("certificate", &self.certificate.is_some())
            .field("psk", &self.psk.is_some())
            .finish_non_exhaustive()
    }
}

impl DtlsSettings {
    /// Reads the files and checks that they fit each other, as opening a listener does.
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn check(&self) -> Result<(), TlsError> {
        DtlsServer::load(self).map(drop)
    }
}

fn server_certificate(files: &TlsSettings, provider: &CryptoProvider) -> Result<ServerCertificate, TlsError> {
    let pair = tls::load_pair(files, provider)?;
    let unusable = || TlsError::UnusableKey {
        path: files.key_file.clone(),
        detail: "DTLS 1.2 has no signatures of this kind".to_owned(),
    };
    match pair.key.algorithm() {
        SignatureAlgorithm::RSA | SignatureAlgorithm::ECDSA | SignatureAlgorithm::ED25519 => {}
        _ => return Err(unusable()),
    }
    let mut chain = Vec::new();
    for certificate in &pair.cert {
        chain.put_uint(certificate.len() as u64, 3);
        chain.put_slice(certificate);
    }
    let mut message = Vec::with_capacity(3 + chain.len());
    message.put_uint(chain.len() as u64, 3);
    message.put_slice(&chain);
    Ok(ServerCertificate {
        message,
        key: pair.key,
    })
}

fn client_certificates(
    files: &TlsSettings,
    provider: Arc<CryptoProvider>,
) -> Result<Option<ClientCertificates>, TlsError> {
    let algorithms = provider.signature_verification_algorithms;
    let Some(verifier) = tls::client_verifier(files, provider)? else {
        return Ok(None);
    };
    let schemes = algorithms.supported_schemes();
    let mut request = Vec::new();
    // ecdsa_sign and rsa_sign. No names of authorities: the client has one certificate, and knows which.
    request.put_slice(&[2, 64, 1]);
    request.put_u16(2 * schemes.len() as u16);
    for scheme in schemes {
        request.put_u16(scheme.into());
    }
    request.put_u16(0);
    Ok(Some(ClientCertificates {
        verifier,
        algorithms,
        required: files.client_auth == ClientAuth::Required,
        request,
    }))
}
