//! `tidegate passwd`.

use std::{
    io::{self, BufRead},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::Failure;
use crate::{
    auth::{self, HashAlgorithm, UpdateError, Upserted, Users},
    config::{self, Sources, UserIdType},
};

/// Longest password, bytes: what fits into CONNECT (MQTT 5 §3.1.3.6).
const PASSWORD_BYTES_MAX: usize = 65_535;

#[derive(Debug, Args)]
pub(super) struct PasswdArgs {
    /// The user name, or with --client-id the client identifier
    #[arg(value_name = "USER")]
    user: String,
    /// The users file, created if it does not exist [default: what authentication.users_file names]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// USER is a client identifier, as authentication.user_id_type = clientid wants it
    #[arg(long)]
    client_id: bool,
    /// How the password is hashed
    #[arg(long, value_enum, default_value_t = Algorithm::Argon2id, conflicts_with = "delete")]
    algorithm: Algorithm,
    /// Exempt the user from the authorization rules, or not [default: as it is; false for a new user]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        conflicts_with = "delete"
    )]
    superuser: Option<bool>,
    /// Read the password from the first line of the standard input instead of asking for it
    #[arg(long, conflicts_with = "delete")]
    stdin: bool,
    /// Delete the user
    #[arg(long)]
    delete: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Algorithm {
    /// Argon2id (RFC 9106)
    Argon2id,
    /// bcrypt; passwords of at most 71 bytes
    Bcrypt,
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018)
    #[value(alias = "pbkdf2-sha256")]
    Pbkdf2,
}

impl PasswdArgs {
    pub(super) fn run(&self, sources: &Sources) -> Result<String, Failure> {
        self.run_with(sources, || {
            if self.stdin {
                read_password(io::stdin().lock())
            } else {
                ask_password()
            }
        })
    }

    fn run_with<F>(&self, sources: &Sources, password: F) -> Result<String, Failure>
    where
        F: FnOnce() -> Result<String, Failure>,
    {
        let settings = config::load(sources)?.settings;
        let configured = settings.authentication;
        let file = self
            .file
            .as_ref()
            .or(configured.users_file.as_ref())
            .ok_or_else(|| {
                Failure::Usage(
                    "which file? Give --file, or set authentication.users_file in the configuration"
                        .to_owned(),
                )
            })?;
        let runtime = |error: UpdateError| Failure::Runtime(error.to_string());
        if self.delete {
            let was_there = auth::remove_user(file, &self.user).map_err(runtime)?;
            return if was_there {
                Ok(format!("deleted {}\n", self.user))
            } else {
                Err(Failure::Runtime(format!(
                    "{}: there is no user {}",
                    file.display(),
                    self.user
                )))
            };
        }
        let is_superuser = match self.superuser {
            Some(is_superuser) => is_superuser,
            None if file.exists() => {
                let users = Users::read(file).map_err(|error| Failure::Runtime(error.to_string()))?;
                users.get(&self.user).is_some_and(|user| user.is_superuser)
            }
            None => false,
        };
        let password = password()?;
        let salt = auth::random_salt().map_err(|error| Failure::Runtime(error.to_string()))?;
        let hash = auth::hash_password(self.algorithm.into(), password.as_bytes(), &salt)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let done = match auth::upsert_user(file, &self.user, &hash, is_superuser).map_err(runtime)? {
            Upserted::Added => "added",
            Upserted::Replaced => "changed",
        };
        Ok(format!(
            "{done} {}\n{}",
            self.user,
            self.hint(configured.user_id_type)
        ))
    }

    /// What to set so that the entry is found.
    fn hint(&self, configured: UserIdType) -> &'static str {
        match (self.client_id, configured) {
            (true, UserIdType::Username) => {
                "users are looked up by user name: set authentication.user_id_type = clientid to change that\n"
            }
            (false, UserIdType::ClientId) => {
                "users are looked up by client identifier: set authentication.user_id_type = username to change that\n"
            }
            _ => "",
        }
    }
}

impl From<Algorithm> for HashAlgorithm {
    fn from(algorithm: Algorithm) -> HashAlgorithm {
        match algorithm {
            Algorithm::Argon2id => HashAlgorithm::Argon2id,
            Algorithm::Bcrypt => HashAlgorithm::Bcrypt,
            Algorithm::Pbkdf2 => HashAlgorithm::Pbkdf2Sha256,
        }
    }
}

/// Asks twice, without showing what is typed.
fn ask_password() -> Result<String, Failure> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|error| {
            Failure::Runtime(format!("cannot ask for a password: {error}; --stdin reads it"))
        })
    };
    let password = usable(ask("Password: ")?)?;
    if ask("Again: ")? != password {
        return Err(Failure::Usage("the passwords differ".to_owned()));
    }
    Ok(password)
}

/// The first line of `input`.
fn read_password(input: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    // Room for the end of the line, and for one byte that shows that there is more.
    let limit = PASSWORD_BYTES_MAX as u64 + 3;
    input
        .take(limit)
        .read_line(&mut line)
        .map_err(|error| Failure::Runtime(format!("cannot read a password: {error}")))?;
    let password = line
        .strip_suffix('\n')
        .map_or(line.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    usable(password.to_owned())
}

fn usable(password: String) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::Usage("the password is empty".to_owned()));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "the password is longer than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        passwd: PasswdArgs,
    }

    fn run(file: &Path, arguments: &[&str], set: &[&str]) -> Result<String, Failure> {
        let file = file.to_str().unwrap();
        let arguments = Arguments::try_parse_from([&["passwd", "--file", file], arguments].concat()).unwrap();
        let sources = Sources {
            arguments: set.iter().map(|argument| (*argument).to_owned()).collect(),
            ..Sources::default()
        };
        arguments.passwd.run_with(&sources, || Ok("secret".to_owned()))
    }

    #[test]
    fn users_are_added_changed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users.conf");
        let is_superuser = |user: &str| {
            Users::read(&file)
                .unwrap()
                .get(user)
                .map(|user| user.is_superuser)
        };

        assert_eq!(run(&file, &["alice"], &[]).unwrap(), "added alice\n");
        assert!(fs::read_to_string(&file).unwrap().starts_with("alice:$argon2id$"));
        assert_eq!(
            run(&file, &["--superuser", "root", "--algorithm", "pbkdf2"], &[]).unwrap(),
            "added root\n"
        );
        assert_eq!(
            (is_superuser("alice"), is_superuser("root")),
            (Some(false), Some(true))
        );

        // A new password alone takes nobody's rights away.
        assert_eq!(run(&file, &["root"], &[]).unwrap(), "changed root\n");
        assert_eq!(is_superuser("root"), Some(true));
        run(&file, &["--superuser=false", "root"], &[]).unwrap();
        assert_eq!(is_superuser("root"), Some(false));

        assert_eq!(
            run(&file, &["--delete", "alice"], &[]).unwrap(),
            "deleted alice\n"
        );
        assert_eq!(is_superuser("alice"), None);
        let missing = run(&file, &["--delete", "alice"], &[]).unwrap_err();
        assert!(matches!(missing, Failure::Runtime(text) if text.ends_with("there is no user alice")));
    }

    #[test]
    fn the_configuration_names_the_file_and_the_kind_of_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users.conf");
        let hint = run(&file, &["--client-id", "device-1"], &[]).unwrap();
        assert!(hint.contains("authentication.user_id_type = clientid"), "{hint}");
        let set = ["authentication.user_id_type=clientid"];
        assert_eq!(
            run(&file, &["--client-id", "device-1"], &set).unwrap(),
            "changed device-1\n"
        );

        let arguments = Arguments::try_parse_from(["passwd", "bob"]).unwrap().passwd;
        let none = arguments.run_with(&Sources::default(), || panic!("no password is asked for in vain"));
        assert!(matches!(none, Err(Failure::Usage(_))));
        let sources = Sources {
            arguments: vec![format!("authentication.users_file={}", file.display())],
            ..Sources::default()
        };
        assert_eq!(
            arguments.run_with(&sources, || Ok("x".to_owned())).unwrap(),
            "added bob\n"
        );
    }

    #[test]
    fn a_password_is_the_first_line() {
        for (input, password) in [
            ("a\n", "a"),
            ("a\r\nb\n", "a"),
            ("a b", "a b"),
            (" a\t\n", " a\t"),
        ] {
            assert_eq!(read_password(input.as_bytes()), Ok(password.to_owned()));
        }
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        assert_eq!(
            read_password(format!("{longest}\r\n").as_bytes()),
            Ok(longest.clone())
        );
        for input in ["", "\n", &format!("{longest}x"), &"x".repeat(1 << 20)] {
            assert!(matches!(read_password(input.as_bytes()), Err(Failure::Usage(_))));
        }
        assert!(matches!(read_password(&b"\xff\n"[..]), Err(Failure::Runtime(_))));
    }
}
