//! The S3 protocol, spoken by a client that is not ours: the one of `object_store`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use longhouse_storage::S3Keys;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, WriteMultipart,
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;

use crate::harness::{ANN, ANN_, As, BOB, TestStorage};

pub(crate) const OPERATOR: (&str, &str) = ("operator", "an operator's secret");
/// Public, as a project's anon key is.
const ANON: &str = "anon";

pub(crate) fn keys() -> S3Keys {
    let (id, secret) = OPERATOR;
    S3Keys {
        operator: Some((id.into(), SecretString::from(secret))),
        session_secret: Some(SecretString::from(ANON)),
        region: "eu-north-1".into(),
    }
}

impl TestStorage {
    fn s3(&self, bucket: &str) -> AmazonS3Builder {
        client_of(&self.url(""), bucket)
    }

    pub(crate) fn operator(&self, bucket: &str) -> AmazonS3 {
        operator_at(&self.url(""), bucket)
    }

    /// A session as Supabase has it: the project as id, its anon key as secret, a user's token.
    fn session(&self, token: &str, bucket: &str) -> AmazonS3 {
        let builder = self.s3(bucket).with_access_key_id("project").with_secret_access_key(ANON);
        builder.with_token(token).build().unwrap()
    }
}

/// A client of the service at an address.
fn client_of(base: &str, bucket: &str) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(format!("{base}/s3"))
        .with_allow_http(true)
        .with_region("anywhere")
        .with_bucket_name(bucket)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
}

pub(crate) fn operator_at(base: &str, bucket: &str) -> AmazonS3 {
    let (id, secret) = OPERATOR;
    client_of(base, bucket).with_access_key_id(id).with_secret_access_key(secret).build().unwrap()
}

async fn names(store: &AmazonS3, prefix: &str) -> Vec<String> {
    let listed = store.list(Some(&Path::from(prefix))).map_ok(|meta| meta.location.to_string());
    listed.try_collect().await.unwrap()
}

fn code(error: &object_store::Error) -> String {
    let text = format!("{error:?}");
    let start = text.find("<Code>").map_or(0, |at| at + 6);
    text[start..].split('<').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn objects_come_and_go() {
    let app = TestStorage::start().await;
    let store = app.operator("files");
    let path = Path::from("folder/a b+c.txt");
    let attributes = Attributes::from_iter([
        (Attribute::ContentType, "text/plain"),
        (Attribute::CacheControl, "max-age=60"),
        (Attribute::Metadata("mood".into()), "calm"),
    ]);
    let options = PutOptions { attributes, ..PutOptions::default() };
    let put = store.put_opts(&path, "hello world".into(), options).await.unwrap();
    let got = store.get(&path).await.unwrap();
    assert_eq!(got.meta.e_tag, put.e_tag);
    assert_eq!(got.attributes.get(&Attribute::ContentType).unwrap().as_ref(), "text/plain");
    assert_eq!(got.attributes.get(&Attribute::CacheControl).unwrap().as_ref(), "max-age=60");
    assert_eq!(got.attributes.get(&Attribute::Metadata("mood".into())).unwrap().as_ref(), "calm");
    assert_eq!(got.bytes().await.unwrap(), "hello world");
    assert_eq!(store.get_range(&path, 6..11).await.unwrap(), "world");
    let suffix = GetOptions { range: Some(GetRange::Suffix(3)), ..GetOptions::default() };
    assert_eq!(store.get_opts(&path, suffix).await.unwrap().bytes().await.unwrap(), "rld");
    assert_eq!(store.head(&path).await.unwrap().size, 11);
    // It is the same object everywhere.
    let got = app.get(As::Service, "/object/files/folder/a%20b%2Bc.txt").await;
    assert_eq!(got.headers()["etag"], put.e_tag.as_deref().unwrap());
    assert_eq!(got.text().await.unwrap(), "hello world");
    // Conditions.
    let current = GetOptions { if_none_match: put.e_tag.clone(), ..GetOptions::default() };
    let refused = store.get_opts(&path, current).await;
    assert!(matches!(refused, Err(object_store::Error::NotModified { .. })), "{refused:?}");
    let other = GetOptions { if_match: Some("\"other\"".into()), ..GetOptions::default() };
    let refused = store.get_opts(&path, other).await;
    assert!(matches!(refused, Err(object_store::Error::Precondition { .. })), "{refused:?}");
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let taken = store.put_opts(&path, "mine".into(), create.clone()).await;
    assert!(matches!(taken, Err(object_store::Error::AlreadyExists { .. })), "{taken:?}");
    store.put_opts(&Path::from("folder/new"), "new".into(), create).await.unwrap();
    // Replacing, copying, deleting.
    store.put(&path, "again".into()).await.unwrap();
    store.copy(&path, &Path::from("copy")).await.unwrap();
    assert_eq!(store.get(&Path::from("copy")).await.unwrap().bytes().await.unwrap(), "again");
    store.delete(&path).await.unwrap();
    assert!(matches!(store.get(&path).await, Err(object_store::Error::NotFound { .. })));
    store.delete(&path).await.unwrap();
    let doomed = ["copy", "folder/new", "never"].map(|name| Ok(Path::from(name)));
    let gone: Vec<Path> =
        store.delete_stream(futures_util::stream::iter(doomed).boxed()).try_collect().await.unwrap();
    assert_eq!(gone.len(), 3);
    assert_eq!(app.count("objects").await, 0);
    app.sweep().await;
    assert!(app.files().is_empty());
}

#[tokio::test]
async fn listings_are_paged_and_nested() {
    let app = TestStorage::start().await;
    let store = app.operator("files");
    for index in 0..1005 {
        let sql = "insert into storage.objects (bucket_id, name) values ('files', $1)";
        app.owner.execute(sql, &[&format!("many/{index:04}")]).await.unwrap();
    }
    for name in ["a.txt", "folder/b.txt", "folder/deeper/c.txt", "z.txt"] {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    assert_eq!(names(&store, "many").await.len(), 1005, "over two pages");
    let level = store.list_with_delimiter(None).await.unwrap();
    let folders: Vec<String> = level.common_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(folders, ["folder", "many"]);
    let objects: Vec<String> = level.objects.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!(objects, ["a.txt", "z.txt"]);
    assert_eq!(names(&store, "folder").await, ["folder/b.txt", "folder/deeper/c.txt"]);
    let offset: Vec<_> = store.list_with_offset(None, &Path::from("many/1003")).try_collect().await.unwrap();
    assert_eq!(offset.len(), 2);
}

#[tokio::test]
async fn parts_become_one_object() {
    let app = TestStorage::start().await;
    let store = Arc::new(app.operator("files"));
    let path = Path::from("large.bin");
    let bytes: Vec<u8> = (0..7_000_000_u32).map(|index| (index * 31 % 251) as u8).collect();
    let mut options = PutMultipartOptions::default();
    options.attributes.insert(Attribute::ContentType, "application/zip".into());
    let upload = store.put_multipart_opts(&path, options).await.unwrap();
    let mut writer = WriteMultipart::new_with_chunk_size(upload, 2_000_000);
    writer.write(&bytes);
    assert_eq!(app.count("s3_multipart_uploads").await, 1);
    let put = writer.finish().await.unwrap();
    let got = store.get(&path).await.unwrap();
    assert_eq!((got.meta.size, &got.meta.e_tag), (7_000_000, &put.e_tag));
    assert_eq!(got.attributes.get(&Attribute::ContentType).unwrap().as_ref(), "application/zip");
    assert!(got.bytes().await.unwrap() == bytes, "byte for byte");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    assert_eq!(put.e_tag.unwrap(), format!("\"{}\"", hex::encode(hash.as_ref())), "the hash of the whole");
    assert_eq!(
        (app.count("s3_multipart_uploads").await, app.count("s3_multipart_uploads_parts").await),
        (0, 0)
    );
    // One that is given up.
    let mut upload = store.put_multipart(&Path::from("never.bin")).await.unwrap();
    upload.put_part("part".into()).await.unwrap();
    app.sweep().await;
    assert_eq!(app.files().len(), 2, "a part is no orphan");
    upload.abort().await.unwrap();
    app.sweep().await;
    assert_eq!((app.files().len(), app.ledger().await.len()), (1, 0));
}

#[tokio::test]
async fn bytes_must_be_what_was_announced() {
    let app = TestStorage::start().await;
    let (id, secret) = OPERATOR;
    let checked = app.s3("files").with_access_key_id(id).with_secret_access_key(secret);
    let checked = checked.with_checksum_algorithm(object_store::aws::Checksum::SHA256).build().unwrap();
    checked.put(&Path::from("a"), "hello".into()).await.unwrap();
    // Presigned, so that a header can lie beside a signature that is right.
    let url = checked.signed_url(Method::PUT, &Path::from("b"), Duration::from_secs(60)).await.unwrap();
    let put = async |name: &'static str, value: &'static str| {
        let request = app.client.put(url.clone()).header(name, value).body("hello");
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for (name, wrong) in [
        ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("x-amz-content-sha256", "0000000000000000000000000000000000000000000000000000000000000000"),
    ] {
        let (status, body) = put(name, wrong).await;
        assert!(status == 400 && body.contains("<Code>BadDigest</Code>"), "{name}: {status} {body}");
    }
    assert_eq!(app.count("objects").await, 1);
    for (name, right) in [("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="), ("x-amz-checksum-crc32", "NhCmhg==")] {
        let (status, body) = put(name, right).await;
        assert_eq!(status, 200, "{name}: {body}");
    }
    app.sweep().await;
    assert_eq!(app.files().len(), 2);
}

#[tokio::test]
async fn presigned_urls_open_for_a_while() {
    let app = TestStorage::start().await;
    let store = app.operator("files");
    let path = Path::from("a b.txt");
    let put = store.signed_url(Method::PUT, &path, Duration::from_secs(60)).await.unwrap();
    assert_eq!(app.client.put(put.clone()).body("hello").send().await.unwrap().status(), 200);
    let get = store.signed_url(Method::GET, &path, Duration::from_secs(60)).await.unwrap();
    let got = app.client.get(get.clone()).send().await.unwrap();
    assert!(got.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert_eq!(got.text().await.unwrap(), "hello");
    assert_eq!(
        app.client.put(get.clone()).body("x").send().await.unwrap().status(),
        403,
        "for reading alone"
    );
    let mut other = get.clone();
    other.set_path(&get.path().replace("a%20b", "b"));
    assert_eq!(app.client.get(other).send().await.unwrap().status(), 403, "for this object alone");
    let brief = store.signed_url(Method::GET, &path, Duration::from_secs(1)).await.unwrap();
    let expired = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let response = app.client.get(brief.clone()).send().await.unwrap();
            if response.status() != 200 {
                return response.text().await.unwrap();
            }
        }
    });
    assert!(expired.await.unwrap().contains("<Code>AccessDenied</Code>"));
    // A session's URL carries its token.
    let session = app.session(&ANN.to_string(), "files");
    app.put(ANN_, &format!("files/{ANN}/own.txt"), "ann's").await;
    let own = Path::from(format!("{ANN}/own.txt"));
    let url = session.signed_url(Method::GET, &own, Duration::from_secs(60)).await.unwrap();
    assert_eq!(app.client.get(url).send().await.unwrap().text().await.unwrap(), "ann's");
}

#[tokio::test]
async fn sessions_act_as_their_user() {
    let app = TestStorage::start().await;
    let (ann, bob) = (app.session(&ANN.to_string(), "files"), app.session(&BOB.to_string(), "files"));
    let path = Path::from(format!("{ANN}/a.txt"));
    ann.put(&path, "ann's".into()).await.unwrap();
    let owner: String =
        app.owner.query_one("select owner_id from storage.objects", &[]).await.unwrap().get(0);
    assert_eq!(owner, ANN.to_string());
    assert!(
        matches!(bob.get(&path).await, Err(object_store::Error::NotFound { .. })),
        "as if it were not there"
    );
    assert_eq!(code(&bob.put(&path, "bob's".into()).await.unwrap_err()), "AccessDenied");
    assert!(names(&bob, "").await.is_empty());
    assert_eq!(names(&ann, "").await, [path.to_string()]);
    assert!(format!("{:?}", bob.delete(&path).await.unwrap_err()).contains("\"AccessDenied\""));
    let mut upload = ann.put_multipart(&path).await.unwrap();
    upload.put_part(PutPayload::from(Bytes::from_static(b"ann's in parts"))).await.unwrap();
    let id: String =
        app.owner.query_one("select id from storage.s3_multipart_uploads", &[]).await.unwrap().get(0);
    use object_store::multipart::MultipartStore;
    let foreign = bob.put_part(&path, &id, 1, "bob's".into()).await.unwrap_err();
    assert_eq!(code(&foreign), "AccessDenied");
    upload.complete().await.unwrap();
    assert_eq!(ann.get(&path).await.unwrap().bytes().await.unwrap(), "ann's in parts");
}

#[tokio::test]
async fn nobody_comes_in_without_a_key() {
    let app = TestStorage::start().await;
    app.operator("files").put(&Path::from("a"), "x".into()).await.unwrap();
    let path = Path::from("a");
    let (id, secret) = OPERATOR;
    let refusal = async |store: AmazonS3| code(&store.put(&path, "x".into()).await.unwrap_err());
    let with = |id: &str, secret: &str| app.s3("files").with_access_key_id(id).with_secret_access_key(secret);
    assert_eq!(refusal(with(id, "guessed").build().unwrap()).await, "SignatureDoesNotMatch");
    assert_eq!(refusal(with(id, ANON).build().unwrap()).await, "SignatureDoesNotMatch");
    // The anon key is public: without a token it opens nothing, nor with a token that is none.
    assert_eq!(refusal(with("project", ANON).build().unwrap()).await, "AccessDenied");
    assert_eq!(refusal(app.session("forged", "files")).await, "AccessDenied");
    let _ = secret;
    for path in ["/s3", "/s3/", "/s3/files", "/s3/files/a"] {
        let plain = app.get(As::Nobody, path).await;
        assert_eq!(plain.status(), 403, "{path}");
        assert!(plain.text().await.unwrap().contains("<Code>AccessDenied</Code>"));
        // A key of another protocol is none here.
        assert_eq!(app.get(As::Service, path).await.status(), 400, "{path}");
    }
    let old = app.client.get(app.url("/s3/files/a")).header("authorization", "AWS operator:AAAA");
    assert!(old.send().await.unwrap().text().await.unwrap().contains("AWS4-HMAC-SHA256"));
    let form = reqwest::multipart::Form::new().text("key", "a").text("file", "x");
    let posted = app.client.post(app.url("/s3/files")).multipart(form).send().await.unwrap();
    assert_eq!(posted.status(), 501);
}

#[tokio::test]
async fn limits_hold_here_too() {
    let app = TestStorage::start().await;
    let limited = json!({"name": "small", "file_size_limit": 10, "allowed_mime_types": ["text/*"]});
    app.call(As::Service, "POST", "/bucket", limited).await;
    let store = app.operator("small");
    let typed = |kind: &'static str| PutOptions {
        attributes: Attributes::from_iter([(Attribute::ContentType, kind)]),
        ..PutOptions::default()
    };
    let put = async |name: &str, body: &'static str, kind: &'static str| {
        let put = store.put_opts(&Path::from(name), body.into(), typed(kind)).await;
        put.err().map(|error| code(&error)).unwrap_or_default()
    };
    assert_eq!(put("fits", "0123456789", "text/plain").await, "");
    assert_eq!(put("over", "0123456789+", "text/plain").await, "EntityTooLarge");
    assert_eq!(put("typed", "x", "image/png").await, "InvalidArgument");
    let mut options = PutMultipartOptions::default();
    options.attributes.insert(Attribute::ContentType, "text/plain".into());
    let mut upload = store.put_multipart_opts(&Path::from("parts"), options).await.unwrap();
    upload.put_part("012345".into()).await.unwrap();
    assert_eq!(
        code(&upload.put_part("6789+".into()).await.unwrap_err()),
        "EntityTooLarge",
        "all parts together"
    );
    let missing = app.operator("nowhere").put(&Path::from("a"), "x".into()).await.unwrap_err();
    assert_eq!(code(&missing), "NoSuchBucket");
    let climbing =
        store.signed_url(Method::PUT, &Path::from("a%2Fb\u{e4}"), Duration::from_secs(60)).await.unwrap();
    let climbing = app.client.put(climbing).body("x").send().await.unwrap();
    assert!(climbing.text().await.unwrap().contains("<Code>InvalidArgument</Code>"));
}
