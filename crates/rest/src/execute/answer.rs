//! What a client hears of an outcome.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Content, Outcome, ResultSet};
use crate::config::RestConfig;
use crate::error::{Error, RangeError};
use crate::plan::{MutatePlan, Output, Plan, ReadPlan, RoutinePlan, WritePlan};
use crate::request::{ApiRequest, Applied, Invocation, MediaType, Mutation, Return};
use crate::response::headers::{
    content_location, content_range, location, override_headers, range_status, set_headers, set_status,
};

const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Status, headers and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Content,
}

impl Answer {
    pub(crate) fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Content::default() }
    }

    /// Adds a header. A value that no header can hold is left out: it would be the name of a relation or of a profile
    /// with control characters.
    pub(crate) fn set(&mut self, name: HeaderName, value: impl AsRef<[u8]>) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_ref()) {
            self.headers.insert(name, value);
        }
    }

    pub(crate) fn set_content(&mut self, media: &MediaType, request: &ApiRequest) {
        self.set(header::CONTENT_TYPE, media.content_type());
        if request.profile_answered {
            self.set(CONTENT_PROFILE, &request.schema);
        }
    }

    fn apply(&mut self, request: &ApiRequest, to: Applied) {
        if let Some(applied) = request.preferences.applied(to) {
            self.set(PREFERENCE_APPLIED, applied);
        }
    }

    /// Lets the database have the last word.
    fn overridden(mut self, result: &ResultSet) -> Result<Self, Error> {
        if let Some(status) = set_status(result.status.as_deref())? {
            self.status = status;
        }
        override_headers(&mut self.headers, set_headers(result.headers.as_deref())?);
        Ok(self)
    }
}

/// Makes the answer to a request from what the database said.
///
/// # Errors
/// Statuses and headers of the database that are none.
pub(crate) fn answer(
    plan: &Plan,
    outcome: Outcome,
    request: &ApiRequest,
    config: &RestConfig,
) -> Result<Answer, Error> {
    match (plan, outcome) {
        (Plan::Options(allow), _) => {
            let mut answer = Answer::new(StatusCode::OK);
            answer.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
            answer.set(header::ALLOW, allow);
            Ok(answer)
        }
        (Plan::Read(ReadPlan { output, .. }), Outcome::Explained(body))
        | (Plan::Mutate(WritePlan { output, .. }), Outcome::Explained(body))
        | (Plan::Call(RoutinePlan { output, .. }), Outcome::Explained(body)) => {
            let mut answer = Answer::new(StatusCode::OK);
            answer.set_content(&output.media, request);
            answer.body = Content::Whole(body);
            Ok(answer)
        }
        (Plan::Read(plan), Outcome::Rows(result)) => read(plan, result, request, config),
        (Plan::Mutate(plan), Outcome::Rows(result)) => write(plan, result, request),
        (Plan::Call(plan), Outcome::Rows(result)) => call(plan, result, request, config),
        (_, outcome) => Err(Error::Internal(format!("a plan that gives no {outcome:?}"))),
    }
}

/// Status, `Content-Range` and body of the rows of a range.
fn ranged(
    result: &mut ResultSet,
    request: &ApiRequest,
    config: &RestConfig,
) -> (StatusCode, String, Content) {
    let rows = u64::try_from(result.page).unwrap_or_default();
    let total = result.total.and_then(|total| u64::try_from(total).ok());
    let (status, content_range) = range_status(request.range, rows, total);
    let body = if status == StatusCode::RANGE_NOT_SATISFIABLE {
        let bounds =
            RangeError::OutOfBounds { lower: request.range.offset, total: total.unwrap_or_default() };
        Content::Whole(Error::InvalidRange(bounds).body(config))
    } else {
        std::mem::take(&mut result.body)
    };
    (status, content_range, body)
}

fn read(
    plan: &ReadPlan,
    mut result: ResultSet,
    request: &ApiRequest,
    config: &RestConfig,
) -> Result<Answer, Error> {
    let (status, content_range, body) = ranged(&mut result, request, config);
    let mut answer = Answer::new(status);
    answer.set(header::CONTENT_RANGE, content_range);
    let content_location = content_location(&plan.relation.name, &request.query.canonical);
    answer.set(header::CONTENT_LOCATION, content_location);
    answer.set_content(&plan.output.media, request);
    answer.apply(request, Applied::Read);
    if !plan.head {
        answer.body = body;
    }
    answer.overridden(&result)
}

fn call(
    plan: &RoutinePlan,
    mut result: ResultSet,
    request: &ApiRequest,
    config: &RestConfig,
) -> Result<Answer, Error> {
    let (status, content_range, body) = ranged(&mut result, request, config);
    let mut answer = Answer::new(status);
    answer.set(header::CONTENT_RANGE, content_range);
    answer.apply(request, Applied::Call);
    if plan.routine.returns_void() {
        answer.status = StatusCode::NO_CONTENT;
    } else {
        answer.set_content(&plan.output.media, request);
        if plan.invocation != Invocation::Head {
            answer.body = body;
        }
    }
    answer.overridden(&result)
}

fn write(plan: &WritePlan, mut result: ResultSet, request: &ApiRequest) -> Result<Answer, Error> {
    let preferences = &request.preferences;
    let represented = preferences.representation == Some(Return::Representation);
    let counted = preferences.count.is_some_and(|count| count != crate::request::Count::Planned);
    let total = counted.then_some(result.page);
    let mut answer = Answer::new(if represented { StatusCode::OK } else { StatusCode::NO_CONTENT });
    match plan.mutation {
        Mutation::Create => {
            let conflicts = match &plan.write {
                MutatePlan::Insert(insert) => {
                    !insert.primary_key.is_empty() || request.query.on_conflict.is_some()
                }
                _ => false,
            };
            let merged = preferences.merge_duplicates == Some(true);
            answer.status = match result.inserted {
                Some(inserted) if inserted > 0 || !merged => StatusCode::CREATED,
                // Nothing was new.
                _ => StatusCode::OK,
            };
            let key = result.location.iter().filter_map(|pair| pair.split_once('='));
            if let Some(location) = location(&plan.relation.name, key) {
                answer.set(header::LOCATION, location);
            }
            answer.set(header::CONTENT_RANGE, content_range(1, 0, total));
            answer.apply(request, Applied::Insert { conflicts });
        }
        Mutation::Update => {
            answer.set(header::CONTENT_RANGE, content_range(0, result.page - 1, total));
            answer.apply(request, Applied::Update);
        }
        Mutation::SingleUpsert => {
            if represented && result.inserted.is_some_and(|inserted| inserted > 0) {
                answer.status = StatusCode::CREATED;
            }
            answer.apply(request, Applied::SingleUpsert);
        }
        Mutation::Delete => {
            answer.set(header::CONTENT_RANGE, content_range(1, 0, total));
            answer.apply(request, Applied::Delete);
        }
    }
    if represented {
        let Output { media, .. } = &plan.output;
        answer.set_content(media, request);
        answer.body = std::mem::take(&mut result.body);
    }
    answer.overridden(&result)
}
