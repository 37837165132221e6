//! Downloading: who may read, and which way they came.

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use serde::Deserialize;

use super::serve::{Serving, respond};
use super::store::Object;
use crate::extract::{self, ObjectPath, SignedPath};
use crate::names::{BucketId, ObjectName};
use crate::storage::Caller;
use crate::{Error, Storage};

/// A bucket's publicity and its object of a name, before anybody's right to it is judged.
#[derive(Debug, Clone)]
pub struct Found {
    /// Whether anybody may read.
    pub public: bool,
    /// The object, if there is one.
    pub object: Option<Object>,
}

/// Which key a route wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// None; the bucket must be public.
    Public,
    /// One.
    Authenticated,
    /// One, unless the bucket is public.
    Any,
}

impl Storage {
    /// An object that whoever sends these headers may read.
    pub(crate) async fn readable(
        &self,
        parts: &Parts,
        door: Door,
        operation: &'static str,
        bucket: &BucketId,
        name: &ObjectName,
    ) -> Result<Object, Error> {
        // A key that is refused counts as none where none is needed: an old session must not hide public files.
        let caller = match door {
            Door::Public => None,
            Door::Authenticated => Some(self.caller(&parts.headers, operation)?),
            Door::Any => match self.identify(&parts.headers) {
                Ok(claims) => claims.map(|claims| Caller::new(claims, operation)),
                Err(_) => None,
            },
        };
        let found = self.find_for_anybody(bucket, name).await?;
        match caller {
            _ if found.public => found.object.ok_or(Error::NoSuchKey),
            None => Err(Error::NoSuchBucket),
            Some(caller) => self.find_object(&caller, bucket, name).await,
        }
    }
}

#[derive(Deserialize)]
struct Wanted {
    download: Option<String>,
}

async fn serve(
    storage: &Storage,
    parts: &Parts,
    door: Door,
    (bucket, name): (BucketId, ObjectName),
    head: bool,
) -> Result<Response, Error> {
    let Wanted { download } = extract::query(parts)?;
    let operation = match (door, head) {
        (Door::Public, _) => "storage.object.get_public",
        (_, true) => "storage.object.head_authenticated_info",
        (_, false) => "storage.object.get_authenticated",
    };
    let object = storage.readable(parts, door, operation, &bucket, &name).await?;
    let serving = Serving { download, expires: None, head };
    respond(storage, &object, &parts.headers, &serving).await
}

macro_rules! routes {
    ($($name:ident: $door:ident, $head:literal;)*) => {$(
        pub(super) async fn $name(
            State(storage): State<Storage>,
            ObjectPath(bucket, name): ObjectPath,
            request: Request,
        ) -> Result<Response, Error> {
            let (parts, _) = request.into_parts();
            serve(&storage, &parts, Door::$door, (bucket, name), $head).await
        }
    )*};
}

routes! {
    any: Any, false;
    head_any: Any, true;
    authenticated: Authenticated, false;
    head_authenticated: Authenticated, true;
    public: Public, false;
    head_public: Public, true;
}

#[derive(Deserialize)]
struct Signed {
    token: String,
    download: Option<String>,
}

async fn by_token(
    storage: &Storage,
    parts: &Parts,
    (bucket, name): (BucketId, ObjectName),
    head: bool,
) -> Result<Response, Error> {
    let Signed { token, download } = extract::query(parts)?;
    let token = storage.signing().verify_download(&token, &format!("{bucket}/{name}"))?;
    if token.transformations.is_some() {
        return Err(Error::InvalidSignature("Invalid signature: this URL shows the image transformed"));
    }
    let object = storage.find_for_anybody(&bucket, &name).await?.object.ok_or(Error::NoSuchKey)?;
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(token.exp));
    respond(storage, &object, &parts.headers, &Serving { download, expires, head }).await
}

pub(super) async fn signed(
    State(storage): State<Storage>,
    SignedPath(bucket, name): SignedPath,
    request: Request,
) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    by_token(&storage, &parts, (bucket, name), false).await
}

pub(super) async fn head_signed(
    State(storage): State<Storage>,
    SignedPath(bucket, name): SignedPath,
    request: Request,
) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    by_token(&storage, &parts, (bucket, name), true).await
}
