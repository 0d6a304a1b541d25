//! What the configuration names: are the files there, can they be read, are they what they should be.

use std::{
    fs::{self, File},
    path::Path,
};

use broker_core::admission::{AclError, AclRules};
use rustls::{crypto::aws_lc_rs, server::WebPkiClientVerifier, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    error::{ConfigError, ConfigErrors},
    listener::Listener,
    load::Loaded,
};
use crate::auth::Users;

/// Looks at everything on disk that the configuration names, without changing anything.
///
/// # Errors
///
/// Everything that is wrong, not only the first.
pub fn check_files(loaded: &Loaded) -> Result<(), ConfigErrors> {
    let mut errors = Vec::new();
    let mut fail = |key: String, problem: String| {
        let origin = loaded.origin(&key).clone();
        let message = format!("{key}: {problem}");
        errors.push(ConfigError { origin, message });
    };
    let settings = &loaded.settings;
    let data_dir = &settings.node.data_dir;
    if data_dir.exists() && !data_dir.is_dir() {
        fail(
            "node.data_dir".to_owned(),
            format!("{} is not a directory", data_dir.display()),
        );
    }
    if let Some(path) = &settings.acl_file
        && let Err(problem) = check_acl(path)
    {
        fail("acl_file".to_owned(), problem);
    }
    if let Some(path) = &settings.authentication.users_file
        && let Err(problem) = check_users(path)
    {
        fail("authentication.users_file".to_owned(), problem);
    }
    for listener in settings
        .enabled_listeners()
        .filter(|listener| listener.kind.is_tls())
    {
        if let Err((key, problem)) = check_tls(listener) {
            let object = format!("listeners.{}.{}", listener.kind.name(), listener.name);
            fail(format!("{object}.ssl_options.{key}"), problem);
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(errors))
    }
}

fn check_acl(path: &Path) -> Result<(), String> {
    is_readable(path)?;
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match AclRules::parse(&text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let AclError {
                line,
                column,
                message,
            } = error;
            Err(format!("{}:{line}:{column}: {message}", path.display()))
        }
    }
}

fn check_users(path: &Path) -> Result<(), String> {
    is_readable(path)?;
    Users::read(path).map(drop).map_err(|error| error.to_string())
}

fn is_readable(path: &Path) -> Result<(), String> {
    let problem = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    File::open(path).map_err(problem)?;
    if fs::metadata(path).map_err(problem)?.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    Ok(())
}

/// The first key of `ssl_options` whose file will not do, and why.
fn check_tls(listener: &Listener) -> Result<(), (&'static str, String)> {
    if let Some(path) = &listener.tls.cacertfile {
        let authorities = certificates(path).map_err(|problem| ("cacertfile", problem))?;
        let bad = |error: String| ("cacertfile", format!("{}: {error}", path.display()));
        let mut roots = rustls::RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| bad(error.to_string()))?;
        }
        WebPkiClientVerifier::builder_with_provider(roots.into(), aws_lc_rs::default_provider().into())
            .build()
            .map_err(|error| bad(error.to_string()))?;
    }
    let (Some(certfile), Some(keyfile)) = (&listener.tls.certfile, &listener.tls.keyfile) else {
        return Ok(());
    };
    let chain = certificates(certfile).map_err(|problem| ("certfile", problem))?;
    is_readable(keyfile).map_err(|problem| ("keyfile", problem))?;
    let key = PrivateKeyDer::from_pem_file(keyfile).map_err(|error| {
        (
            "keyfile",
            format!("{} holds no private key: {error}", keyfile.display()),
        )
    })?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        (
            "keyfile",
            format!("{} and {}: {error}", keyfile.display(), certfile.display()),
        )
    })?;
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    is_readable(path)?;
    let problem = |error: rustls_pki_types::pem::Error| format!("{} is not PEM: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(problem)?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(certificates)
}
