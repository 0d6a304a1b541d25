//! What can go wrong when workers and listeners are set up, in words that an operator can act on.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The TLS files cannot be used.
    #[error("listener {listener}: {error}")]
    Tls {
        /// Name of the listener.
        listener: Arc<str>,
        /// What is wrong with them.
        error: TlsError,
    },
    /// The workers have been shut down, or are too busy to take the listener.
    #[error("listener {0}: the workers do not take it; they are shutting down or overloaded")]
    Workers(Arc<str>),
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {}", self.explanation())]
pub struct BindError {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system answered.
    #[source]
    pub cause: io::Error,
}

impl BindError {
    fn explanation(&self) -> String {
        let mut parts = self.listener.splitn(3, ':');
        let key = match (parts.next(), parts.next(), parts.next()) {
            (Some(gateway), Some(kind), Some(name)) => format!("gateway.{gateway}.listeners.{kind}.{name}"),
            _ => format!("listeners.{}", self.listener.replacen(':', ".", 1)),
        };
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {} is in use; stop the program that holds it or change {key}.bind",
                self.address.port()
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission for port {}; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one",
                self.address.port()
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no address {}; use one of its own or 0.0.0.0",
                self.address.ip()
            ),
            _ => self.cause.to_string(),
        }
    }
}

/// The files of a TLS listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}; check the path and that the service's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        cause: io::Error,
    },
    /// A file holds no certificate.
    #[error("no certificate in {}; it must hold a PEM block BEGIN CERTIFICATE", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file is not PEM, or a block in it is damaged.
    #[error("{} is damaged: {detail}; export it again as PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        detail: String,
    },
    /// A file holds no private key.
    #[error("no private key in {}; it must hold a PEM block BEGIN PRIVATE KEY (or RSA, or EC)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key needs a password.
    #[error("the private key in {} is encrypted; decrypt it, for example with `openssl pkey`", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of a kind that cannot be used.
    #[error("the private key in {} cannot be used: {detail}; use RSA, ECDSA P-256/P-384 or Ed25519", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What the library says.
        detail: String,
    },
    /// Certificate and key are not of one pair.
    #[error("the key in {} does not belong to the certificate in {}; give both files of one pair", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("the certificate in {} cannot be used: {detail}", path.display())]
    UnusableCertificate {
        /// The file.
        path: PathBuf,
        /// What the library says.
        detail: String,
    },
    /// Client certificates are asked for, but nobody may sign them.
    #[error("client certificates are asked for without a CA file; set cacertfile or verify = verify_none")]
    NoAuthority,
    /// A DTLS listener has neither a certificate nor pre-shared keys.
    #[error("nothing to prove who the server is; give a certificate with its key, or pre-shared keys")]
    NoCredentials,
    /// Clients of a DTLS listener are to show certificates, but the server has none.
    #[error(
        "client certificates are asked for without a certificate of the server; set certfile and keyfile"
    )]
    ClientCertificatesWithoutOwn,
    /// Neither TLS 1.2 nor TLS 1.3 is allowed.
    #[error("no TLS version is allowed; allow tlsv1.2, tlsv1.3 or both")]
    NoVersion,
}

/// The workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No shard was given, or more than 65 536.
    #[error("{0} workers asked for; there must be 1 to 65536")]
    Count(usize),
    /// The system refused a thread or its event queue.
    #[error("cannot start worker {worker}: {cause}; the limit of threads or of open files may be reached")]
    Thread {
        /// Which one.
        worker: usize,
        /// What the system answered.
        cause: io::Error,
    },
}

/// A worker does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls wait already ([`WorkerConfig::mailbox_calls_max`](crate::WorkerConfig)); try again later.
    #[error("the worker has too many calls waiting")]
    Busy,
    /// The worker has ended.
    #[error("the worker has ended")]
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_to_change_is_named() {
        for (listener, key) in [
            ("tcp:default", "listeners.tcp.default.bind"),
            ("mqttsn:udp:default", "gateway.mqttsn.listeners.udp.default.bind"),
        ] {
            let error = BindError {
                listener: listener.into(),
                address: SocketAddr::from(([0, 0, 0, 0], 1883)),
                cause: io::ErrorKind::AddrInUse.into(),
            };
            assert!(
                error.to_string().ends_with(&format!("or change {key}")),
                "{error}"
            );
        }
    }
}
