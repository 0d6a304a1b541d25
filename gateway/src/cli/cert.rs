//! `tidegate cert`: certificates for development. An authority signs a server's and a client's certificate, so that
//! a client trusts one file, and `verify_peer` can be tried out.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::Failure;
use crate::config;

/// Names that a server on the same machine is reached by.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// How long the certificates are valid: the longest that common TLS libraries put up with (825 days).
const VALIDITY: Duration = Duration::from_secs(825 * 86_400);
/// They are valid from a day ago on, for devices whose clock is behind.
const LEEWAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Args)]
pub(super) struct CertArgs {
    /// Directory to write to, created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name or address that clients reach the server by, besides localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

/// One file to write.
struct Output {
    name: &'static str,
    pem: String,
    is_secret: bool,
}

impl CertArgs {
    pub(super) fn run(&self) -> Result<String, Failure> {
        let names: Vec<_> = LOCAL_NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(self.host.iter().cloned())
            .collect();
        let outputs = generate(names, SystemTime::now())
            .map_err(|error| Failure::Usage(format!("cannot make a certificate for these names: {error}")))?;
        if !self.force {
            let existing = outputs
                .iter()
                .map(|output| self.out.join(output.name))
                .find(|path| path.exists());
            if let Some(path) = existing {
                return Err(Failure::Runtime(format!(
                    "{} is there already; --force replaces it",
                    path.display()
                )));
            }
        }
        fs::create_dir_all(&self.out)
            .map_err(|error| Failure::Runtime(format!("cannot create {}: {error}", self.out.display())))?;
        for output in &outputs {
            let path = self.out.join(output.name);
            write(&path, output)
                .map_err(|error| Failure::Runtime(format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(self.report(&outputs))
    }

    /// Says what was written and which settings use it. Everything but settings is a comment, so that the text can
    /// be appended to a configuration file as it is.
    fn report(&self, outputs: &[Output]) -> String {
        let quoted = |name: &str| config::quote(&self.out.join(name).to_string_lossy());
        let mut text = "# For development only. Written:\n".to_owned();
        for output in outputs {
            let _ = writeln!(text, "#   {}", self.out.join(output.name).display());
        }
        for kind in ["ssl", "wss"] {
            for (key, name) in [
                ("certfile", "server.pem"),
                ("keyfile", "server-key.pem"),
                ("cacertfile", "ca.pem"),
            ] {
                let _ = writeln!(
                    text,
                    "listeners.{kind}.default.ssl_options.{key} = {}",
                    quoted(name)
                );
            }
        }
        text.push_str("# To let in only clients with a certificate, such as client.pem:\n");
        for setting in ["verify = verify_peer", "fail_if_no_peer_cert = true"] {
            let _ = writeln!(text, "#listeners.ssl.default.ssl_options.{setting}");
        }
        let _ = writeln!(text, "# Clients trust {}.", quoted("ca.pem"));
        text
    }
}

fn generate(names: Vec<String>, now: SystemTime) -> Result<Vec<Output>, rcgen::Error> {
    let mut authority = params(Vec::new(), "Tidegate development authority", now)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = params(names, "localhost", now)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut client = params(Vec::new(), "client", now)?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

    let mut outputs = vec![
        Output {
            name: "ca.pem",
            pem: authority.pem(),
            is_secret: false,
        },
        Output {
            name: "ca-key.pem",
            pem: authority.key().serialize_pem(),
            is_secret: true,
        },
    ];
    for (mut params, certificate_name, key_name) in [
        (server, "server.pem", "server-key.pem"),
        (client, "client.pem", "client-key.pem"),
    ] {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        outputs.push(Output {
            name: certificate_name,
            pem: certificate.pem(),
            is_secret: false,
        });
        outputs.push(Output {
            name: key_name,
            pem: key.serialize_pem(),
            is_secret: true,
        });
    }
    Ok(outputs)
}

fn params(names: Vec<String>, common_name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let epoch = date_time_ymd(1970, 1, 1);
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since_epoch.saturating_sub(LEEWAY);
    params.not_after = params.not_before + VALIDITY;
    Ok(params)
}

/// The file is new, so that a secret is never written into a file that others may read.
fn write(path: &Path, output: &Output) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if output.is_secret {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(output.pem.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, crypto::aws_lc_rs,
        server::WebPkiClientVerifier,
    };
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

    use super::*;
    use crate::config::{Sources, check_files, load};

    fn identity(dir: &Path, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}-key.pem"))).unwrap();
        (vec![chain], key)
    }

    /// A handshake in memory, both sides verifying each other.
    fn handshake(dir: &Path, host: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap())
            .unwrap();
        let roots = Arc::new(roots);
        let (chain, key) = identity(dir, "server");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)?;
        let (chain, key) = identity(dir, "client");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut client =
            ClientConnection::new(Arc::new(client), ServerName::try_from(host.to_owned()).unwrap())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn both_sides_accept_the_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new").join("certs");
        let mut arguments = CertArgs {
            out: out.clone(),
            host: vec!["broker.example".to_owned()],
            force: false,
        };
        let report = arguments.run().unwrap();
        for host in ["localhost", "127.0.0.1", "::1", "broker.example"] {
            assert_eq!(handshake(&out, host), Ok(()), "{host}");
        }
        assert!(handshake(&out, "other.example").is_err());

        let file = dir.path().join("tidegate.conf");
        fs::write(&file, report).unwrap();
        let loaded = load(&Sources {
            file: Some(file),
            ..Sources::default()
        })
        .unwrap();
        check_files(&loaded).unwrap();
        assert_eq!(loaded.settings.enabled_listeners().count(), 4);

        let again = arguments.run().unwrap_err().to_string();
        assert!(
            again.ends_with("is there already; --force replaces it"),
            "{again}"
        );
        arguments.force = true;
        arguments.run().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let arguments = CertArgs {
            out: dir.path().to_owned(),
            host: Vec::new(),
            force: false,
        };
        arguments.run().unwrap();
        for name in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = CertArgs {
            out: dir.path().join("x"),
            host: vec!["bröker".to_owned()],
            force: false,
        };
        assert!(matches!(arguments.run(), Err(Failure::Usage(_))));
        assert!(!dir.path().join("x").exists());
    }
}
