//! Keys that people bring, in Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use longhouse_database::Claims;
use longhouse_gateway::keys::envelope::MasterKeys;
use longhouse_gateway::keys::{Holder, KeySource as _, NewKey, Owner, PostgresKeys, StaticKeys};
use longhouse_gateway::{Error, ProviderName};
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use crate::database::{ANN, BOB, Store, owner};

const TENANT: Uuid = Uuid::from_u128(0x7e);
const PROJECT: Uuid = Uuid::from_u128(0x9);

fn keys(store: &Store, masters: MasterKeys) -> PostgresKeys {
    let platform = StaticKeys::default().with("openai", "sk-the-operators-own".into());
    PostgresKeys::new(store.database.clone(), masters, platform)
}

fn new_key(holder: Holder, secret: &str) -> NewKey {
    NewKey {
        holder,
        provider: ProviderName::new("openai"),
        app: String::new(),
        name: "mine".into(),
        secret: secret.into(),
        base_url: None,
    }
}

fn openai() -> ProviderName {
    ProviderName::new("openai")
}

async fn masked(keys: &PostgresKeys, owner: &Owner) -> String {
    keys.key(owner, &openai()).await.unwrap().map(|key| key.masked()).unwrap_or_default()
}

#[tokio::test]
async fn the_nearest_key_serves() {
    let store = Store::new().await;
    let keys = keys(&store, MasterKeys::new(&"master".into(), None));
    let ann = owner(ANN);
    let everything = Owner { tenant: Some(TENANT), project: Some(PROJECT), ..ann.clone() };
    assert_eq!(masked(&keys, &ann).await, "***-own", "the operator's");
    keys.put(new_key(Holder::Tenant(TENANT), "sk-of-the-tenant")).await.unwrap();
    assert_eq!(masked(&keys, &everything).await, "***nant");
    keys.put(new_key(Holder::User(ANN), "sk-of-ann-herself")).await.unwrap();
    assert_eq!(masked(&keys, &everything).await, "***self");
    keys.put(new_key(Holder::Project(PROJECT), "sk-of-the-project")).await.unwrap();
    assert_eq!(masked(&keys, &everything).await, "***ject");
    keys.put(NewKey { app: "stories".into(), ..new_key(Holder::User(ANN), "sk-only-for-stories") })
        .await
        .unwrap();
    assert_eq!(masked(&keys, &ann).await, "***ries");
    assert_eq!(masked(&keys, &Owner { app: "npc".into(), ..ann.clone() }).await, "***self");
    assert_eq!(masked(&keys, &owner(BOB)).await, "***-own");
    let own = keys.key(&ann, &openai()).await.unwrap().unwrap();
    assert!(own.is_own() && !format!("{own:?}").contains("stories"));
}

#[tokio::test]
async fn nobody_reads_what_is_sealed() {
    let store = Store::new().await;
    let keys = keys(&store, MasterKeys::new(&"master".into(), None));
    let stored = keys.put(new_key(Holder::User(ANN), "sk-planted-marker-1")).await.unwrap();
    assert_eq!(stored.masked, "***er-1");
    keys.put(new_key(Holder::User(BOB), "sk-planted-marker-2")).await.unwrap();
    for claims in [Claims::user(ANN), Claims::new("service_role", serde_json::Map::new())] {
        for column in ["ciphertext", "wrapped_key", "master_key"] {
            let refused = store.seen(&claims, &format!("select {column} from ai.keys")).await.unwrap_err();
            assert!(refused.contains("42501"), "{refused}");
        }
    }
    assert_eq!(keys.list(&Claims::user(ANN)).await.unwrap().len(), 1);
    let whole: String =
        store.owner.query_one("select k::text from ai.keys k limit 1", &[]).await.unwrap().get(0);
    assert!(!whole.contains("planted") && !whole.contains(&hex::encode("planted")));
    // Another's cannot be deleted, one's own can.
    assert!(!keys.delete(&Claims::user(BOB), stored.id).await.unwrap());
    assert!(keys.delete(&Claims::user(ANN), stored.id).await.unwrap());
    assert_eq!(masked(&keys, &owner(ANN)).await, "***-own");
    let insert = "insert into ai.keys (provider, user_id, masked, ciphertext, wrapped_key, master_key)
        values ('openai', auth.uid(), '', '', '', '')";
    assert!(store.database.as_role(&Claims::user(ANN)).execute(insert, &[]).await.is_err());
}

#[tokio::test]
async fn a_row_that_was_moved_or_redirected_does_not_open() {
    let store = Store::new().await;
    let fresh = || keys(&store, MasterKeys::new(&"master".into(), None));
    let base_url = Url::parse("https://models.example.com/v1").ok();
    let stored =
        fresh().put(NewKey { base_url, ..new_key(Holder::User(ANN), "sk-planted-marker-1") }).await.unwrap();
    assert!(fresh().key(&owner(ANN), &openai()).await.unwrap().unwrap().base_url().is_some());
    for change in ["base_url = 'https://evil.example.com/v1'", &format!("user_id = '{BOB}'")] {
        store.owner.batch_execute(&format!("begin; update ai.keys set {change}")).await.unwrap();
        store.owner.batch_execute("commit").await.unwrap();
        for user in [ANN, BOB] {
            match fresh().key(&owner(user), &openai()).await {
                Err(Error::Records(message)) => {
                    assert!(message.contains(&stored.id.to_string()), "{message}");
                }
                Ok(key) => assert_eq!(key.unwrap().masked(), "***-own", "nothing of this person's is there"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn bad_keys_are_refused_and_change_nothing() {
    let store = Store::new().await;
    let keys = keys(&store, MasterKeys::new(&"master".into(), None));
    for bad in ["", "  ", "two words", "a\u{0}b", "schlüssel", &"x".repeat(9_000)] {
        let refused = keys.put(new_key(Holder::User(ANN), bad)).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidRequest(_)), "{refused}");
    }
    assert_eq!(store.number("select count(*) from ai.keys").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_changes_every_envelope_while_calls_go_on() {
    let store = Store::new().await;
    let (old, new): (SecretString, SecretString) = ("the old master key".into(), "the new master key".into());
    let before = keys(&store, MasterKeys::new(&old, None));
    let people: Vec<Uuid> = (0..300).map(|i| Uuid::from_u128(0x5000 + i)).collect();
    for (i, person) in people.iter().enumerate() {
        before.put(new_key(Holder::User(*person), &format!("sk-secret-number-{i:04}"))).await.unwrap();
    }
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let database = store.database.clone();
            let (old, new) = (old.clone(), new.clone());
            let (people, stop, reads) = (people.clone(), Arc::clone(&stop), Arc::clone(&reads));
            tokio::spawn(async move {
                let mut at = reader * 37;
                while !stop.load(Ordering::Relaxed) {
                    // A new source each time remembers nothing: every read opens a row.
                    let masters = MasterKeys::new(&new, Some(&old));
                    let keys = PostgresKeys::new(database.clone(), masters, StaticKeys::default());
                    at = (at + 7) % people.len();
                    let key = keys.key(&owner(people[at]), &openai()).await.unwrap().unwrap();
                    assert_eq!(key.masked(), format!("***{at:04}"));
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while reads.load(Ordering::Relaxed) < 20 {
        tokio::task::yield_now().await;
    }
    let during = keys(&store, MasterKeys::new(&new, Some(&old)));
    let begun = reads.load(Ordering::Relaxed);
    assert_eq!(during.rotate().await.unwrap(), 300);
    assert!(reads.load(Ordering::Relaxed) > begun, "reading went on");
    assert_eq!(during.rotate().await.unwrap(), 0);
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    // The old one can go.
    let after = keys(&store, MasterKeys::new(&new, None));
    for (i, person) in people.iter().enumerate().step_by(50) {
        assert_eq!(masked(&after, &owner(*person)).await, format!("***{i:04}"));
    }
    assert!(keys(&store, MasterKeys::new(&old, None)).key(&owner(people[0]), &openai()).await.is_err());
}
