//! What the configuration names: are the files there, can they be read, are they what they should be.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use broker_core::admission::{AclError, AclRules};
use driver::{ClientAuth, PskLookup, TlsError};

use super::{
    error::{ConfigError, ConfigErrors},
    listener::Listener,
    load::Loaded,
    mqttsn::{DatagramKind, DatagramListener},
};
use crate::auth::{PskTable, Users};

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
    for listener in settings
        .mqttsn
        .enabled_listeners()
        .filter(|listener| listener.kind == DatagramKind::Dtls)
    {
        for (key, problem) in check_dtls(listener) {
            fail(format!("{}.dtls_options.{key}", listener.key()), problem);
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
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
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

/// The keys of `dtls_options` whose files will not do, and why.
fn check_dtls(listener: &DatagramListener) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let options = &listener.dtls;
    let mut psk: Option<PskLookup> = None;
    if let Some(path) = &options.psk_file {
        let read = is_readable(path).and_then(|()| PskTable::read(path).map_err(|error| error.to_string()));
        if let Err(problem) = read {
            problems.push(("psk_file", problem));
        }
        // Of the keys, the check wants to know no more than that there are some.
        psk = Some(Arc::new(|_: &str| None));
    }
    let Some(mut settings) = listener.dtls_settings(psk) else {
        return problems;
    };
    if settings.ca_file.is_some()
        && settings.certificate.is_some()
        && settings.client_auth == ClientAuth::None
    {
        settings.client_auth = ClientAuth::Optional;
    }
    if let Err(error) = settings.check() {
        let [certificate, key] = [&options.certfile, &options.keyfile].map(|file| file.as_deref());
        problems.push((tls_key(&error, certificate, key), error.to_string()));
    }
    problems
}

fn check_users(path: &Path) -> Result<(), String> {
    is_readable(path)?;
    Users::read(path).map(drop).map_err(|error| error.to_string())
}

fn is_readable(path: &Path) -> Result<(), String> {
    File::open(path).map_err(|error| unreadable(path, &error))?;
    if path.is_dir() {
        return Err(format!("{} is a directory; name a file", path.display()));
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!("cannot read {path}: {error}; check the path and that the gateway's user may read it")
}

/// The first key of `ssl_options` whose file will not do, and why.
fn check_tls(listener: &Listener) -> Result<(), (&'static str, String)> {
    let Some(mut settings) = listener.tls_settings() else {
        return Ok(());
    };
    if settings.ca_file.is_some() && settings.client_auth == ClientAuth::None {
        // Named and not used yet: a fault in it would come out when clients are first asked.
        settings.client_auth = ClientAuth::Optional;
    }
    settings.check().map_err(|error| {
        let files = (&settings.certificate_file, &settings.key_file);
        let key = tls_key(&error, Some(files.0), Some(files.1));
        (key, error.to_string())
    })
}

/// The option whose file is at fault.
fn tls_key(error: &TlsError, certificate: Option<&Path>, key: Option<&Path>) -> &'static str {
    match error {
        TlsError::NoKey { .. }
        | TlsError::EncryptedKey { .. }
        | TlsError::UnusableKey { .. }
        | TlsError::KeyMismatch { .. } => "keyfile",
        TlsError::NoAuthority => "cacertfile",
        TlsError::NoVersion => "versions",
        TlsError::NoCredentials | TlsError::ClientCertificatesWithoutOwn => "certfile",
        TlsError::Unreadable { path, .. }
        | TlsError::NoCertificate { path }
        | TlsError::Malformed { path, .. }
        | TlsError::UnusableCertificate { path, .. } => {
            if Some(path.as_path()) == certificate {
                "certfile"
            } else if Some(path.as_path()) == key {
                "keyfile"
            } else {
                "cacertfile"
            }
        }
    }
}
