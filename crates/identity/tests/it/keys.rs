//! `keys.json`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use longhouse_config::Config;
use longhouse_identity::{KeysError, ProjectKeys, Verifier};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

fn project() -> (TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().join("data"), ..Config::default() };
    (folder, config)
}

fn all(keys: &ProjectKeys) -> Vec<String> {
    [
        &keys.jwt_secret,
        &keys.anon_key,
        &keys.service_role_key,
        &keys.publishable_key,
        &keys.secret_key,
        &keys.twilio_auth_token,
    ]
    .map(|key| key.expose_secret().to_owned())
    .into()
}

#[test]
fn are_made_once_and_for_their_owner_only() {
    let (_folder, config) = project();
    let first = ProjectKeys::load_or_create(&config).unwrap();
    let second = ProjectKeys::load_or_create(&config).unwrap();
    assert_eq!(all(&first), all(&second));
    let path = ProjectKeys::path(&config.data);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&config.data).unwrap().count(), 1, "temporary files are left behind");
    assert!(first.publishable_key.expose_secret().starts_with("sb_publishable_"));
    assert!(first.secret_key.expose_secret().starts_with("sb_secret_"));
    assert_ne!(all(&first), all(&ProjectKeys::load_or_create(&project().1).unwrap()));
}

#[test]
fn of_first_starts_at_once_are_the_same() {
    let (_folder, config) = project();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            std::thread::spawn(move || all(&ProjectKeys::load_or_create(&config).unwrap()))
        })
        .collect();
    let keys: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn follow_a_configured_secret() {
    let (_folder, mut config) = project();
    let generated = ProjectKeys::load_or_create(&config).unwrap();
    config.supabase.jwt_secret = Some("a-secret-that-another-project-has-already".into());
    let configured = ProjectKeys::load_or_create(&config).unwrap();
    assert_eq!(configured.jwt_secret.expose_secret(), "a-secret-that-another-project-has-already");
    assert_ne!(generated.anon_key.expose_secret(), configured.anon_key.expose_secret());
    let claims = Verifier::new(&configured).verify(configured.service_role_key.expose_secret()).unwrap();
    assert_eq!(claims.role(), "service_role");
    let again = ProjectKeys::load_or_create(&config).unwrap();
    assert_eq!(all(&again), all(&configured), "clients keep their key over a restart");
    let file = fs::read_to_string(ProjectKeys::path(&config.data)).unwrap();
    assert!(!file.contains("another-project"), "a configured secret is not copied to disk");
}

#[test]
fn configured_keys_win_even_when_another_secret_signed_them() {
    let (_folder, mut config) = project();
    let hosted = ProjectKeys::generate();
    config.supabase.anon_key = Some(hosted.anon_key.clone());
    let keys = ProjectKeys::load_or_create(&config).unwrap();
    let verifier = Verifier::new(&keys);
    assert_eq!(verifier.verify(hosted.anon_key.expose_secret()).unwrap().role(), "anon");
    assert!(verifier.verify(hosted.service_role_key.expose_secret()).is_err());
}

#[test]
fn weak_secrets_and_damaged_files_are_refused_without_quoting_them() {
    let (_folder, mut config) = project();
    let keys = ProjectKeys::load_or_create(&config).unwrap();
    config.supabase.jwt_secret = Some(SecretString::from("short"));
    let error = ProjectKeys::load_or_create(&config).unwrap_err();
    assert!(matches!(error, KeysError::WeakSecret(5)), "{error}");

    config.supabase.jwt_secret = None;
    let path = ProjectKeys::path(&config.data);
    let secret = keys.jwt_secret.expose_secret();
    fs::write(&path, format!("{{\"jwt_secret\": [\"{secret}\"]}}")).unwrap();
    let message = ProjectKeys::load_or_create(&config).unwrap_err().to_string();
    assert!(message.contains("keys.json") && message.contains("remove it"), "{message}");
    assert!(!message.contains(secret), "{message}");
    assert!(!format!("{keys:?}").contains(secret));
}
