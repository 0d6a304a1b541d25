use std::{fs, path::Path, sync::Arc};

use broker_core::{
    CertificateInfo, ClientId, ClientInfo, ReasonCode, Timestamp,
    admission::{Authentication, Authenticator, Credentials, Grant},
};
use proptest::prelude::*;

use super::*;
use crate::config::UserIdType;

// Cheap parameters. Those of PBKDF2 and bcrypt were made by other implementations (Python's hashlib, libcrypt), the
// one of Argon2 is a test vector of its reference implementation.
const PBKDF2_SHA256: &str =
    "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$Pz0s4HPO+TyHnyTxIR8Lx+fEZojc3Lc26DQkf4ZOWCk";
const PBKDF2_SHA512: &str =
    "$pbkdf2-sha512$i=1200,l=32$MDEyMzQ1Njc4OWFiY2RlZg$yBBo69AiRna9njYeGeMTajg45Tmmh1GJQmz5HQwD4yM";
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG";
const ARGON2ID: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

#[test]
fn hashes_of_other_implementations_are_understood() {
    for (hash, password) in [
        (PBKDF2_SHA256, "s3cret"),
        (PBKDF2_SHA512, "s3cret"),
        (BCRYPT, "s3cret"),
        (ARGON2ID, "password"),
    ] {
        let stored = StoredHash::parse(hash).unwrap();
        assert!(stored.verify(password.as_bytes()), "{hash}");
        for wrong in ["", "S3cret", "s3cre", "s3crett", "Password", "\0"] {
            assert!(!stored.verify(wrong.as_bytes()), "{hash} {wrong}");
        }
        assert!(!format!("{stored:?}").contains(&hash[30..40]));
    }
}

#[test]
fn a_new_hash_fits_its_password_only_and_depends_on_the_salt() {
    let (salt, other) = ([7; 16], [8; 16]);
    for (algorithm, start) in [
        (HashAlgorithm::Argon2id, "$argon2id$v=19$m=19456,t=2,p=1$"),
        (HashAlgorithm::Bcrypt, "$2b$12$"),
        (HashAlgorithm::Pbkdf2Sha256, "$pbkdf2-sha256$i=600000,l=32$"),
    ] {
        let hash = hash_password(algorithm, b"pass\0word", &salt).unwrap();
        assert!(hash.starts_with(start), "{hash}");
        let stored = StoredHash::parse(&hash).unwrap();
        assert!(stored.verify(b"pass\0word") && !stored.verify(b"pass"));
        assert_ne!(hash, hash_password(algorithm, b"pass\0word", &other).unwrap());
        // Smaller than what the thread keeps of the one before.
        assert!(StoredHash::parse(ARGON2ID).unwrap().verify(b"password"));
    }
    let long = [b'x'; 72];
    assert_eq!(
        hash_password(HashAlgorithm::Bcrypt, &long, &salt),
        Err(HashError::PasswordTooLong)
    );
    assert_ne!(random_salt().unwrap(), random_salt().unwrap());
}

#[test]
fn what_is_no_usable_hash_is_refused_when_it_is_read() {
    let costly = |text: &str| matches!(StoredHash::parse(text), Err(HashError::TooCostly { .. }));
    assert!(costly(&ARGON2ID.replace("m=256", "m=1048577")));
    assert!(costly(&ARGON2ID.replace("t=2", "t=65")));
    assert!(costly(&BCRYPT.replace("$04$", "$17$")));
    assert!(costly(&PBKDF2_SHA256.replace("i=1000", "i=10000001")));
    for text in [
        "",
        "secret",
        "$1$abc",
        "$5$rounds=1$x$y",
        "$2x$04$abc",
        "$scrypt$ln=1$c2FsdHNhbHQ$aGFzaA",
    ] {
        assert_eq!(StoredHash::parse(text), Err(HashError::NotAHash), "{text}");
    }
    let without_hash = ARGON2ID.rsplit_once('$').unwrap().0;
    for text in [
        without_hash,
        "$argon2id$v=19$m=256,t=2,p=1",
        "$argon2id$v=20$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$2b$04$short",
        "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5D!",
        "$pbkdf2-sha256$i=1,l=32$MDEyMzQ1Njc4OWFiY2RlZg$Pz0s4HPO+TyHnyTxIR8Lx+fEZojc3Lc26DQkf4ZOWCk",
    ] {
        assert!(
            matches!(StoredHash::parse(text), Err(HashError::Damaged(_))),
            "{text}"
        );
    }
}

fn file() -> String {
    format!("# users\n\nalice:{PBKDF2_SHA256}\nadmin:{BCRYPT}:superuser\r\naa:bb:$cc:{PBKDF2_SHA512}  \n")
}

#[test]
fn a_file_holds_one_user_per_line() {
    let users = Users::parse(&file(), "users").unwrap();
    assert_eq!(users.len(), 3);
    assert!(!users.get("alice").unwrap().is_superuser);
    assert!(users.get("admin").unwrap().is_superuser);
    assert!(users.get("aa:bb:$cc").is_some());
    assert!(users.get("# users").is_none());
    assert!(Users::parse("", "users").unwrap().is_empty());
}

#[test]
fn a_wrong_line_is_located_and_says_what_to_do() {
    for (line, expected) in [
        ("alice".to_owned(), "users:2:6: expected USER:HASH"),
        ("alicé:secret".to_owned(), "users:2:7: expected USER:HASH"),
        ("alicé:$9$x".to_owned(), "users:2:7: not a password hash"),
        (format!("alicé:{BCRYPT}:root"), "users:2:68: expected `superuser`"),
        (format!(":{BCRYPT}"), "users:2:1: the user id is empty"),
        (format!(" a:{BCRYPT}"), "users:2:1: the user id is empty"),
        (format!("a\u{7}:{BCRYPT}"), "users:2:1: the user id is empty"),
        (format!("bob:{ARGON2ID}"), "users:2:1: the user of line 1 again"),
    ] {
        let text = format!("bob:{BCRYPT}\n{line}\n");
        let error = Users::parse(&text, "users").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let secret = Users::parse("alice:hunter2", "users").unwrap_err().to_string();
    assert!(secret.contains("tidegate passwd") && !secret.contains("hunter2"));
    assert!(matches!(
        Users::read(Path::new("no/such/file")),
        Err(UsersError::Read { .. })
    ));
}

struct Client {
    id: ClientId,
    username: Option<&'static str>,
    password: Option<&'static [u8]>,
}

fn ask(authenticator: &UserAuthenticator, client: &Client) -> Authentication {
    let certificate: Option<&Arc<CertificateInfo>> = None;
    authenticator.authenticate(
        Timestamp::from_millis(0),
        &Credentials {
            client_id: &client.id,
            username: client.username,
            password: client.password,
            peer: None,
            local: None,
            connection: &ClientInfo::system().connection,
            certificate,
        },
    )
}

#[test]
fn known_users_are_allowed_or_denied_and_unknown_ones_ignored() {
    let denied = Authentication::Deny(ReasonCode::BadUserNameOrPassword);
    let allowed = |is_superuser| {
        Authentication::Allow(Grant {
            is_superuser,
            ..Grant::default()
        })
    };
    for conceal in [false, true] {
        let by_name = UserAuthenticator::new(
            Users::parse(&file(), "users").unwrap(),
            UserIdType::Username,
            conceal,
        );
        for (username, password, expected) in [
            (Some("alice"), Some("s3cret"), allowed(false)),
            (Some("admin"), Some("s3cret"), allowed(true)),
            (Some("alice"), Some("wrong"), denied.clone()),
            (Some("alice"), Some(""), denied.clone()),
            (Some("alice"), None, denied.clone()),
            (Some("Alice"), Some("s3cret"), Authentication::Ignore),
            (Some("mallory"), None, Authentication::Ignore),
            (None, Some("s3cret"), Authentication::Ignore),
            (None, None, Authentication::Ignore),
        ] {
            let client = Client {
                id: ClientId::new("alice"),
                username,
                password: password.map(str::as_bytes),
            };
            assert_eq!(ask(&by_name, &client), expected, "{username:?} {password:?}");
        }
        let by_id = UserAuthenticator::new(
            Users::parse(&file(), "users").unwrap(),
            UserIdType::ClientId,
            conceal,
        );
        let client = Client {
            id: ClientId::new("aa:bb:$cc"),
            username: Some("anything"),
            password: Some(b"s3cret"),
        };
        assert_eq!(ask(&by_id, &client), allowed(false));
    }
}

#[test]
fn a_user_with_an_empty_password_still_has_to_send_it() {
    let hash = bcrypt::hash_with_salt(b"", 4, [1; 16]).unwrap().to_string();
    let users = Users::parse(&format!("empty:{hash}"), "users").unwrap();
    let authenticator = UserAuthenticator::new(users, UserIdType::Username, true);
    let client = |password| Client {
        id: ClientId::new("c"),
        username: Some("empty"),
        password,
    };
    assert!(matches!(
        ask(&authenticator, &client(Some(b""))),
        Authentication::Allow(_)
    ));
    assert!(matches!(
        ask(&authenticator, &client(None)),
        Authentication::Deny(_)
    ));
}

#[test]
fn a_decoy_costs_what_most_hashes_cost() {
    let other = BCRYPT.replace('L', "M");
    let text = format!("a:{ARGON2ID}\nb:{BCRYPT}\nc:{other}\n");
    assert_eq!(StoredHash::parse(BCRYPT).unwrap().cost_class(), "$2b$04");
    assert_eq!(
        StoredHash::parse(ARGON2ID).unwrap().cost_class(),
        "$argon2id$v=19$m=256,t=2,p=1"
    );
    let users = Users::parse(&text, "users").unwrap();
    assert_eq!(users.decoy().unwrap().cost_class(), "$2b$04");
    assert!(Users::default().decoy().is_none());
}

#[test]
fn a_change_leaves_the_rest_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.conf");
    assert_eq!(upsert_user(&path, "zoe", BCRYPT, false).unwrap(), Upserted::Added);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("zoe:{BCRYPT}\n"));
    fs::write(
        &path,
        format!("# top\nalice:{BCRYPT}\n\n#alice:{BCRYPT}\nbob:{BCRYPT}:superuser"),
    )
    .unwrap();
    assert_eq!(
        upsert_user(&path, "alice", ARGON2ID, true).unwrap(),
        Upserted::Replaced
    );
    assert_eq!(
        upsert_user(&path, "a:l:i", BCRYPT, false).unwrap(),
        Upserted::Added
    );
    assert!(remove_user(&path, "bob").unwrap());
    assert!(!remove_user(&path, "bob").unwrap());
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("# top\nalice:{ARGON2ID}:superuser\n\n#alice:{BCRYPT}\na:l:i:{BCRYPT}\n")
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_change_that_cannot_be_made_leaves_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.conf");
    assert!(matches!(
        remove_user(&path, "a"),
        Err(UpdateError::Users(UsersError::Read { .. }))
    ));
    for user_id in ["", "#a", " a", "a ", "a\nb:$2b$x", "\0"] {
        let error = upsert_user(&path, user_id, BCRYPT, false).unwrap_err();
        assert!(matches!(error, UpdateError::UserId(_)), "{user_id:?}");
    }
    assert!(matches!(
        upsert_user(&path, "a", "plain", false),
        Err(UpdateError::Hash(_))
    ));
    let broken = format!("a:{BCRYPT}\nb:plain\n");
    fs::write(&path, &broken).unwrap();
    assert!(matches!(
        upsert_user(&path, "a", ARGON2ID, false),
        Err(UpdateError::Users(_))
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    let lock = folder.path().join("users.conf.new");
    fs::write(&lock, "").unwrap();
    assert!(matches!(
        upsert_user(&path, "a", ARGON2ID, false),
        Err(UpdateError::Busy(_))
    ));
    assert!(lock.exists());
}

#[cfg(unix)]
#[test]
fn permissions_are_kept_and_a_link_stays_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("real"), folder.path().join("link"));
    upsert_user(&path, "a", BCRYPT, false).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&path, &link).unwrap();
    upsert_user(&link, "b", BCRYPT, false).unwrap();
    assert_eq!(mode(&path), 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Users::read(&path).unwrap().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), cut in 0..200_usize, with in any::<char>()) {
        let _ = Users::parse(&text, "users");
        let mut damaged: Vec<char> = file().chars().collect();
        let at = cut % damaged.len();
        damaged[at] = with;
        let _ = Users::parse(&damaged.into_iter().collect::<String>(), "users");
    }

    #[test]
    fn a_user_that_was_added_is_found(user_id in "[^\\pC#][^\\pC]{0,12}:?\\$?[a-z]", is_superuser: bool) {
        prop_assume!(user_id.trim() == user_id);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        upsert_user(&path, "first", ARGON2ID, false).unwrap();
        upsert_user(&path, &user_id, BCRYPT, is_superuser).unwrap();
        let users = Users::read(&path).unwrap();
        prop_assert_eq!(users.get(&user_id).unwrap().is_superuser, is_superuser);
    }
}
