//! Listing: folders are what names have in common up to a slash.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use longhouse_database::tokio_postgres::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::extract::{self, BucketPath};
use crate::names::{BucketId, LONGEST_KEY};
use crate::storage::Caller;
use crate::{Error, Storage};

const SEARCH: &str = "
    select name, id, updated_at, created_at, last_accessed_at, metadata
    from storage.search($1, $2, $3, 1, $4, $5, $6, $7)";
const BY_NAME: &str = "
    select name, id, updated_at, created_at, last_accessed_at, metadata
    from storage.list_objects_with_delimiter($1, $2, $3, $4, $5, '', $6)";
// Folders are as old as their first object.
const BY_TIME: &str = "
    with matching as (
      select o.*, position($3 in substr(o.name, length($2) + 1)) as place
      from storage.objects o
      where o.bucket_id = $1 and o.name collate \"C\" >= $2 and o.name collate \"C\" < $2 || chr(1114111)
    ), entries as (
      select left(m.name, length($2) + m.place + length($3) - 1) as name, null::uuid as id,
        min(m.created_at) as updated_at, min(m.created_at) as created_at, null::timestamptz as last_accessed_at,
        null::jsonb as metadata
      from matching m where $3 <> '' and m.place > 0 group by 1
      union all
      select m.name, m.id, m.updated_at, m.created_at, m.last_accessed_at, m.metadata
      from matching m where $3 = '' or m.place = 0
    ), timed as (
      select e.*, case $6 when 'created_at' then e.created_at else e.updated_at end as moment from entries e
    )
    select name, id, updated_at, created_at, last_accessed_at, metadata from timed
    where $5::text = ''
      or ($7 and (moment, name collate \"C\") < ($8::timestamptz, $5 collate \"C\"))
      or (not $7 and (moment, name collate \"C\") > ($8::timestamptz, $5 collate \"C\"))
    order by case when $7 then moment end desc, case when not $7 then moment end,
      case when $7 then name end collate \"C\" desc, name collate \"C\"
    limit $4";

/// Most entries of one page.
const MOST: i64 = 1000;

/// An entry of a listing; a folder has a name alone.
#[derive(Debug, Clone, Serialize)]
pub struct ListedObject {
    /// Relative to the folder in the first version's listing, else whole.
    pub name: String,
    /// Unset for a folder.
    pub id: Option<Uuid>,
    /// When it was changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was replaced.
    pub last_accessed_at: Option<DateTime<Utc>>,
    /// What the server says about the bytes.
    pub metadata: Option<Value>,
}

/// What of a bucket is to be listed, in pages.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// Names begin with it.
    pub prefix: &'a str,
    /// What ends a folder; empty: there are none.
    pub delimiter: &'a str,
    /// The last name of the page before, or empty.
    pub after: &'a str,
    /// Entries of the page.
    pub limit: i64,
    /// Backwards.
    pub descending: bool,
}

/// One page.
#[derive(Debug, Clone)]
pub struct Level {
    /// Folders and objects, in order.
    pub entries: Vec<ListedObject>,
    /// Whether there are more.
    pub has_next: bool,
}

impl Storage {
    /// One page of a bucket in the order of names, as far as the caller may see it.
    ///
    /// # Errors
    /// The database.
    pub async fn list_by_name(
        &self,
        caller: &Caller,
        bucket: &BucketId,
        listing: &Listing<'_>,
    ) -> Result<Level, Error> {
        let (limit, order) = (listing.limit.clamp(1, MOST), if listing.descending { "desc" } else { "asc" });
        let rows = self
            .query(
                caller,
                BY_NAME,
                &[
                    &bucket.as_str(),
                    &listing.prefix,
                    &listing.delimiter,
                    &(limit as i32 + 1),
                    &listing.after,
                    &order,
                ],
            )
            .await?;
        Ok(page(&rows, limit))
    }
}

fn page(rows: &[Row], limit: i64) -> Level {
    let limit = usize::try_from(limit).unwrap_or(0);
    Level { entries: rows.iter().take(limit).map(read).collect(), has_next: rows.len() > limit }
}

fn read(row: &Row) -> ListedObject {
    ListedObject {
        name: row.get(0),
        id: row.get(1),
        updated_at: row.get(2),
        created_at: row.get(3),
        last_accessed_at: row.get(4),
        metadata: row.get(5),
    }
}

#[derive(Deserialize)]
struct SortBy {
    column: Option<String>,
    order: Option<String>,
}

#[derive(Deserialize)]
struct First {
    prefix: String,
    #[serde(default, deserialize_with = "extract::whole")]
    limit: Option<i64>,
    #[serde(default, deserialize_with = "extract::whole")]
    offset: Option<i64>,
    #[serde(rename = "sortBy")]
    sort_by: Option<SortBy>,
    search: Option<String>,
}

fn column<'a>(sort: Option<&SortBy>, known: &[&'a str]) -> Result<&'a str, Error> {
    let Some(wanted) = sort.and_then(|sort| sort.column.as_deref()) else { return Ok("name") };
    known.iter().find(|column| **column == wanted).copied().ok_or_else(|| {
        Error::InvalidRequest(format!("body/sortBy/column must be one of {}", known.join(", ")))
    })
}

fn prefix_fits(prefix: &str) -> Result<(), Error> {
    if prefix.len() > LONGEST_KEY || prefix.contains('\0') { Err(Error::invalid_key(prefix)) } else { Ok(()) }
}

pub(super) async fn first(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<ListedObject>>, Error> {
    let caller = storage.caller(&headers, "storage.object.list")?;
    let body: First = extract::json(&storage, body).await?;
    let column = column(body.sort_by.as_ref(), &["name", "updated_at", "created_at", "last_accessed_at"])?;
    let descending = extract::descending(body.sort_by.as_ref().and_then(|sort| sort.order.as_deref()))?;
    let order = if descending { "desc" } else { "asc" };
    let limit = extract::bounded("body/limit", body.limit, 1, MOST)?.unwrap_or(100) as i32;
    let offset = extract::bounded("body/offset", body.offset, 0, i64::from(i32::MAX))?.unwrap_or(0) as i32;
    // A prefix is always a folder here.
    let folder = match body.prefix.as_str() {
        "" => String::new(),
        prefix if prefix.ends_with('/') => prefix.to_owned(),
        prefix => format!("{prefix}/"),
    };
    let search = body.search.unwrap_or_default();
    prefix_fits(&folder)?;
    prefix_fits(&search)?;
    let rows = storage
        .query(&caller, SEARCH, &[&folder, &bucket.as_str(), &limit, &offset, &search, &column, &order])
        .await?;
    Ok(Json(rows.iter().map(read).collect()))
}

#[derive(Deserialize)]
struct Second {
    #[serde(default)]
    prefix: String,
    #[serde(default, deserialize_with = "extract::whole")]
    limit: Option<i64>,
    cursor: Option<String>,
    #[serde(default, deserialize_with = "extract::flag")]
    with_delimiter: Option<bool>,
    #[serde(rename = "sortBy")]
    sort_by: Option<SortBy>,
}

/// Where the next page begins, and in which order it goes on.
#[derive(Serialize, Deserialize)]
struct Cursor {
    after: String,
    column: String,
    descending: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    moment: Option<DateTime<Utc>>,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("strings and dates are JSON"))
    }

    fn decode(text: &str) -> Result<Self, Error> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Error::InvalidRequest("body/cursor: pass nextCursor of the page before".into()))
    }
}

#[derive(Serialize)]
struct Folder {
    name: String,
    key: String,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    object: ListedObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    has_next: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor_key: Option<String>,
    folders: Vec<Folder>,
    objects: Vec<Entry>,
}

pub(super) async fn second(
    State(storage): State<Storage>,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Page>, Error> {
    const COLUMNS: [&str; 3] = ["name", "updated_at", "created_at"];
    let caller = storage.caller(&headers, "storage.object.list_v2")?;
    let body: Second = extract::json(&storage, body).await?;
    prefix_fits(&body.prefix)?;
    let limit = extract::bounded("body/limit", body.limit, 1, MOST)?.unwrap_or(MOST);
    let cursor = body.cursor.as_deref().filter(|text| !text.is_empty()).map(Cursor::decode).transpose()?;
    let (column, descending) = match &cursor {
        // A page goes on as the first one began.
        Some(cursor) => {
            let sort = SortBy { column: Some(cursor.column.clone()), order: None };
            (column(Some(&sort), &COLUMNS)?, cursor.descending)
        }
        None => (
            column(body.sort_by.as_ref(), &COLUMNS)?,
            extract::descending(body.sort_by.as_ref().and_then(|sort| sort.order.as_deref()))?,
        ),
    };
    let with_delimiter = body.with_delimiter.unwrap_or(false);
    let delimiter = if with_delimiter { "/" } else { "" };
    let after = cursor.as_ref().map_or("", |cursor| cursor.after.as_str());
    let level = if column == "name" {
        let listing = Listing { prefix: &body.prefix, delimiter, after, limit, descending };
        storage.list_by_name(&caller, &bucket, &listing).await?
    } else {
        let moment = cursor.as_ref().and_then(|cursor| cursor.moment).unwrap_or(DateTime::UNIX_EPOCH);
        let rows = storage
            .query(
                &caller,
                BY_TIME,
                &[
                    &bucket.as_str(),
                    &body.prefix,
                    &delimiter,
                    &(limit + 1),
                    &after,
                    &column,
                    &descending,
                    &moment,
                ],
            )
            .await?;
        page(&rows, limit)
    };
    let last = level.entries.last().filter(|_| level.has_next);
    let next_cursor = last.map(|last| {
        let moment = match column {
            "created_at" => last.created_at,
            "updated_at" => last.updated_at,
            _ => None,
        };
        Cursor { after: last.name.clone(), column: column.to_owned(), descending, moment }.encode()
    });
    let next_cursor_key = last.map(|last| last.name.clone());
    let key = |name: &str| {
        let name = name.strip_suffix('/').unwrap_or(name);
        name.rsplit('/').next().unwrap_or(name).to_owned()
    };
    let (mut folders, mut objects) = (Vec::new(), Vec::new());
    for object in level.entries {
        if object.id.is_none() {
            folders.push(Folder { key: key(&object.name), name: object.name });
        } else {
            let key = with_delimiter.then(|| key(&object.name));
            objects.push(Entry { object, key });
        }
    }
    Ok(Json(Page { has_next: level.has_next, next_cursor, next_cursor_key, folders, objects }))
}
