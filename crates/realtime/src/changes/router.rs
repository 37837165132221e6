//! From changes to the subscriptions of this server that may see them: filters, rights, row-level security, in the
//! order of commits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use longhouse_database::{Claims, Database, Error};

use super::ask;
use super::batch::Entry;
use super::catalog::{self, Catalog, Policies, Rows, Table};
use super::compile::{self, Unusable};
use super::filter::{Compiled, Condition, Verdict};
use super::identity::Identity;
use super::payload::{self, Row, Seen, View};
use super::pgoutput::{Operation, Relation};
use super::policy::{Type, Unsure, Value};
use super::registry::{Group, Registry};
use super::{Change, Sink, SubscriptionId, SystemStatus};

/// Changes that are decided about at once.
pub(super) const AT_ONCE: usize = 2_000;
/// Questions to Postgres that are collected before they are asked.
const MOST_PENDING: usize = 20_000;
/// Filters that are remembered as too slow.
const MOST_SLOW: usize = 1_000;
/// How long the database may be away before changes are given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tables whose facts are kept; with more, only those of the changes at hand.
const MOST_TABLES: usize = 1_000;
/// Changes of types and functions do not show in the fingerprint: facts are read anew after so long.
const STALE: Duration = Duration::from_secs(60);

/// Decides who receives what.
pub(super) struct Router {
    database: Database,
    sink: Arc<dyn Sink>,
    registry: Arc<Mutex<Registry>>,
    catalog: Catalog,
    tables: BTreeSet<u32>,
    roles: Arc<BTreeSet<String>>,
    fingerprint: String,
    loaded: Option<tokio::time::Instant>,
    plans: HashMap<u32, Plan>,
    /// Of which version of the registry the plans are.
    planned: u64,
    compiled: HashMap<(u32, Condition), Option<Arc<Compiled>>>,
    /// Conditions that took too long. Whoever has one receives nothing.
    slow: HashSet<Condition>,
}

/// Who could be concerned by the changes of a table.
struct Plan {
    table: Arc<Table>,
    relation: Arc<Relation>,
    places: Vec<Option<usize>>,
    candidates: Vec<Candidate>,
    views: Vec<View>,
}

/// Subscriptions that receive the same, as far as this table is concerned.
struct Candidate {
    identity: Arc<Identity>,
    groups: Arc<Vec<Group>>,
    group: usize,
    filters: Vec<Arc<Compiled>>,
    rows: Rows,
    view: usize,
}

impl Candidate {
    fn group(&self) -> &Group {
        &self.groups[self.group]
    }
}

/// A change and a candidate about which Postgres has to say something.
struct Pending {
    entry: usize,
    candidate: usize,
    /// Which of the candidate's filters it is asked about.
    filters: Vec<usize>,
    policies: Option<Arc<Policies>>,
}

impl Router {
    pub(super) fn new(database: Database, sink: Arc<dyn Sink>, registry: Arc<Mutex<Registry>>) -> Self {
        Self {
            database,
            sink,
            registry,
            catalog: Catalog::default(),
            tables: BTreeSet::new(),
            roles: Arc::default(),
            fingerprint: String::new(),
            loaded: None,
            plans: HashMap::new(),
            planned: 0,
            compiled: HashMap::new(),
            slow: HashSet::new(),
        }
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands changes to those who may see them. While the database is away it waits; after [`PATIENCE`] the changes
    /// are given up, and the subscribers told.
    pub(super) async fn route(&mut self, entries: &[Entry]) {
        // What is known of a table holds for rows of one form only: a change of its columns ends a run.
        let (mut start, mut forms) = (0, HashMap::new());
        for (index, entry) in entries.iter().enumerate() {
            let form = forms.entry(entry.relation.oid).or_insert(&entry.relation);
            if *form != &entry.relation {
                self.route_run(&entries[start..index]).await;
                (start, forms) = (index, HashMap::from([(entry.relation.oid, &entry.relation)]));
            }
        }
        self.route_run(&entries[start..]).await;
    }

    async fn route_run(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_route(entries).await {
                Ok(()) => break,
                Err(error) if started.elapsed() < PATIENCE => {
                    tracing::warn!(%error, "cannot decide who may see changes; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => {
                    tracing::error!(%error, changes = entries.len(), "gave up changes: the database could not be asked who may see them");
                    metrics::counter!("realtime_changes_lost_total").increment(entries.len() as u64);
                    let ids = self.registry().ids();
                    let message =
                        "Some changes were lost because the database could not be asked who may see them";
                    self.sink.system(&ids, SystemStatus::Error, message);
                    break;
                }
            }
        }
        let lag = (Utc::now() - payload::moment(last.at)).num_milliseconds().max(0);
        #[expect(clippy::cast_precision_loss, reason = "a lag of centuries may be inexact")]
        metrics::gauge!("realtime_changes_lag_seconds").set(lag as f64 / 1000.0);
    }

    async fn try_route(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let concerned = self.prepare(entries).await?;
        if concerned.is_empty() {
            return Ok(());
        }
        // By entry: which candidates receive it.
        let mut receivers: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        let (mut pending, mut slow) = (Vec::new(), Vec::new());
        let mut checks = 0_u64;
        for &index in &concerned {
            let entry = &entries[index];
            let plan = &self.plans[&entry.relation.oid];
            checks += plan.decide(index, entry, &mut receivers[index], &mut pending);
            if pending.len() >= MOST_PENDING {
                slow.extend(self.ask(entries, std::mem::take(&mut pending), &mut receivers).await?);
            }
            // A long list of candidates must not starve the sockets of this runtime.
            tokio::task::consume_budget().await;
        }
        metrics::counter!("realtime_changes_checks_total", "by" => "memory").increment(checks);
        slow.extend(self.ask(entries, pending, &mut receivers).await?);
        for &index in &concerned {
            let plan = &self.plans[&entries[index].relation.oid];
            plan.deliver(&entries[index], &receivers[index], &*self.sink);
        }
        if !slow.is_empty() {
            self.forbid(slow);
        }
        Ok(())
    }

    /// Takes subscriptions out whose filters take too long, and tells them.
    fn forbid(&mut self, slow: Vec<Condition>) {
        if self.slow.len() > MOST_SLOW {
            self.slow.clear();
        }
        let groups = self.registry().groups(self.catalog.reads_sessions);
        let concerned = |group: &&Group| group.selection.conditions.iter().any(|one| slow.contains(one));
        let ids: Vec<_> = groups.iter().filter(concerned).flat_map(|group| group.ids.clone()).collect();
        self.sink.system(
            &ids,
            SystemStatus::Error,
            "The filter takes too long to evaluate; nothing more is sent",
        );
        self.slow.extend(slow);
        self.plans.clear();
    }

    /// Brings plans up to date and says which entries concern anybody.
    async fn prepare(&mut self, entries: &[Entry]) -> Result<Vec<usize>, Error> {
        let (version, groups, roles) = {
            let mut registry = self.registry();
            if registry.len() == 0 {
                return Ok(Vec::new());
            }
            let groups = registry.groups(self.catalog.reads_sessions);
            (registry.version(), groups, registry.roles())
        };
        let mut concerned = Vec::new();
        let mut relations: BTreeMap<u32, Arc<Relation>> = BTreeMap::new();
        let mut named: HashMap<(&str, &str), bool> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let name = (entry.relation.schema.as_str(), entry.relation.table.as_str());
            let interesting = *named
                .entry(name)
                .or_insert_with(|| groups.iter().any(|group| group.selection.concerns(name.0, name.1)));
            if interesting {
                relations.insert(entry.relation.oid, Arc::clone(&entry.relation));
                concerned.push(index);
            }
        }
        if concerned.is_empty() {
            return Ok(concerned);
        }
        let reloaded = self.refresh(&relations, roles).await?;
        let groups = if reloaded { self.registry().groups(self.catalog.reads_sessions) } else { groups };
        if reloaded || self.planned != version {
            self.plans.clear();
            self.planned = version;
        }
        for (oid, relation) in &relations {
            let current = self.plans.get(oid).is_some_and(|plan| plan.relation == *relation);
            if !current {
                match self.catalog.tables.get(oid).cloned() {
                    Some(table) => {
                        let plan = self.plan(&table, relation, &groups).await?;
                        self.plans.insert(*oid, plan);
                    }
                    // Dropped since.
                    None => {
                        self.plans.remove(oid);
                    }
                }
            }
        }
        concerned.retain(|&index| self.plans.contains_key(&entries[index].relation.oid));
        Ok(concerned)
    }

    /// Reads the facts of tables and roles anew if they have changed; says whether they have.
    async fn refresh(
        &mut self,
        relations: &BTreeMap<u32, Arc<Relation>>,
        roles: Arc<BTreeSet<String>>,
    ) -> Result<bool, Error> {
        let mut known = relations.keys().all(|oid| self.tables.contains(oid)) && roles.is_subset(&self.roles);
        known &= self.loaded.is_some_and(|loaded| loaded.elapsed() < STALE);
        if !known {
            if self.tables.len() > MOST_TABLES {
                self.tables.clear();
            }
            self.tables.extend(relations.keys());
            self.roles = roles;
        }
        let (tables, roles): (Vec<u32>, Vec<String>) =
            (self.tables.iter().copied().collect(), self.roles.iter().cloned().collect());
        // Before the facts: what changes in between is noticed the next time.
        let fingerprint = catalog::fingerprint(&self.database, &tables, &roles).await?;
        if known && fingerprint == self.fingerprint {
            return Ok(false);
        }
        self.catalog = catalog::load(&self.database, &tables, &roles).await?;
        self.fingerprint = fingerprint;
        self.loaded = Some(tokio::time::Instant::now());
        self.compiled.clear();
        Ok(true)
    }

    async fn plan(
        &mut self,
        table: &Arc<Table>,
        relation: &Arc<Relation>,
        groups: &Arc<Vec<Group>>,
    ) -> Result<Plan, Error> {
        let mut views: Vec<View> = Vec::new();
        let mut known: HashMap<(&str, Option<&Vec<String>>), usize> = HashMap::new();
        let mut candidates = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            if !group.selection.concerns(&relation.schema, &relation.table) {
                continue;
            }
            let Some(role) = table.roles.get(group.identity.role()) else { continue };
            if role.rows == Rows::Nothing {
                continue;
            }
            let Some(filters) = self
                .filters(table, &group.identity.claims, &group.selection.conditions, &role.columns)
                .await?
            else {
                continue;
            };
            let select = group.selection.select.as_ref();
            let view = *known.entry((group.identity.role(), select)).or_insert_with(|| {
                let shown =
                    |name: &String, key: bool| key || select.is_none_or(|select| select.contains(name));
                let columns = table.columns.iter().zip(&role.columns);
                let columns = columns.map(|(column, allowed)| *allowed && shown(&column.name, column.key));
                let old_keys_only = table.row_security && role.rows != Rows::Everything;
                views.push(View { columns: columns.collect(), old_keys_only });
                views.len() - 1
            });
            candidates.push(Candidate {
                identity: Arc::clone(&group.identity),
                groups: Arc::clone(groups),
                group: index,
                filters,
                rows: role.rows.clone(),
                view,
            });
        }
        Ok(Plan {
            places: payload::places(table, relation),
            table: Arc::clone(table),
            relation: Arc::clone(relation),
            candidates,
            views,
        })
    }

    /// The filters of a subscription for a table; none if one of them cannot hold there.
    async fn filters(
        &mut self,
        table: &Arc<Table>,
        claims: &Claims,
        conditions: &[Condition],
        allowed: &[bool],
    ) -> Result<Option<Vec<Arc<Compiled>>>, Error> {
        let mut filters = Vec::with_capacity(conditions.len());
        for condition in conditions {
            if self.slow.contains(condition) {
                return Ok(None);
            }
            let key = (table.oid, condition.clone());
            let compiled = match self.compiled.get(&key) {
                Some(compiled) => compiled.clone(),
                None => {
                    let compiled = match compile::compile(&self.database, claims, table, condition).await {
                        Ok(compiled) => Some(Arc::new(compiled)),
                        Err(Unusable::Invalid(_)) => None,
                        Err(Unusable::Database(error)) => return Err(error),
                    };
                    self.compiled.insert(key, compiled.clone());
                    compiled
                }
            };
            match compiled {
                Some(compiled) if allowed[compiled.column] => filters.push(compiled),
                _ => return Ok(None),
            }
        }
        Ok(Some(filters))
    }

    /// Asks Postgres: first about filters, then about row-level security of what is left.
    async fn ask(
        &self,
        entries: &[Entry],
        mut pending: Vec<Pending>,
        receivers: &mut [Vec<usize>],
    ) -> Result<Vec<Condition>, Error> {
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let plan = |entry: usize| &self.plans[&entries[entry].relation.oid];
        let mut questions: HashMap<(usize, &str), ask::FilterQuestion<'_>> = HashMap::new();
        for (number, one) in pending.iter().enumerate() {
            let plan = plan(one.entry);
            let candidate = &plan.candidates[one.candidate];
            for &filter in &one.filters {
                let compiled = &candidate.filters[filter];
                let row = plan.row(&entries[one.entry]);
                let value = match row.filtered_value(compiled.column, &plan.views[candidate.view]) {
                    Seen::Text(text) => Some(text.to_owned()),
                    Seen::Null | Seen::Missing => None,
                };
                questions
                    .entry((Arc::as_ptr(compiled).addr(), candidate.identity.role()))
                    .or_insert_with(|| ask::FilterQuestion {
                        claims: &candidate.identity.claims,
                        compiled,
                        column: &plan.table.columns[compiled.column],
                        values: Vec::new(),
                        asked_by: Vec::new(),
                    })
                    .push(value, number);
            }
        }
        let ask::Filtered { mut failed, slow } =
            ask::filters(&self.database, questions.into_values().collect()).await?;
        let mut number = 0;
        pending.retain(|_| {
            number += 1;
            !failed.remove(&(number - 1))
        });
        let mut rows: HashMap<usize, Arc<str>> = HashMap::new();
        let mut questions: HashMap<(usize, u32), ask::PolicyQuestion<'_>> = HashMap::new();
        for one in &pending {
            let plan = plan(one.entry);
            let candidate = &plan.candidates[one.candidate];
            match &one.policies {
                None => receivers[one.entry].push(one.candidate),
                Some(policies) => questions
                    .entry((Arc::as_ptr(&candidate.identity).addr(), plan.table.oid))
                    .or_insert_with(|| ask::PolicyQuestion {
                        claims: &candidate.identity.claims,
                        sql: &policies.sql,
                        rows: Vec::new(),
                        asked: Vec::new(),
                    })
                    .push(one.entry, one.candidate, || {
                        let row = rows.entry(one.entry).or_insert_with(|| {
                            let mut row = String::new();
                            plan.row(&entries[one.entry]).as_input(&mut row);
                            row.into()
                        });
                        Arc::clone(row)
                    }),
            }
        }
        let asked: u64 = questions.values().map(|question| question.rows.len() as u64).sum();
        metrics::counter!("realtime_changes_checks_total", "by" => "postgres").increment(asked);
        for (entry, candidate) in ask::policies(&self.database, questions.into_values().collect()).await? {
            receivers[entry].push(candidate);
        }
        Ok(slow)
    }
}

impl Plan {
    fn row<'r>(&'r self, entry: &'r Entry) -> Row<'r> {
        Row { entry, table: &self.table, places: &self.places }
    }

    /// Decides what can be decided here; returns the number of policies that were evaluated.
    fn decide(
        &self,
        index: usize,
        entry: &Entry,
        receivers: &mut Vec<usize>,
        pending: &mut Vec<Pending>,
    ) -> u64 {
        let row = self.row(entry);
        let operation = entry.row.operation;
        // Policies of different roles read the same columns.
        let mut values: Vec<Option<Result<Option<Value<'_>>, Unsure>>> = vec![None; self.table.columns.len()];
        let mut last: Option<(*const Policies, bool)> = None;
        let mut checks = 0;
        for (number, candidate) in self.candidates.iter().enumerate() {
            if !candidate.group().selection.wants(operation) {
                continue;
            }
            let mut asked = Vec::new();
            let view = &self.views[candidate.view];
            let matches = candidate.filters.iter().enumerate().all(|(place, filter)| {
                let verdict = match row.filtered_value(filter.column, view) {
                    Seen::Missing => Verdict::No,
                    Seen::Null => filter.check(None),
                    Seen::Text(text) => filter.check(Some(text)),
                };
                if verdict == Verdict::Ask {
                    asked.push(place);
                }
                verdict != Verdict::No
            });
            if !matches {
                continue;
            }
            let policies = match &candidate.rows {
                Rows::Nothing => continue,
                // Of a row that is gone nobody can say who could see it: its primary key is all that is told.
                _ if operation == Operation::Delete => None,
                Rows::Everything => None,
                Rows::Allowed(policies) => {
                    checks += 1;
                    if let Some(expression) = &policies.here {
                        let of = Arc::as_ptr(policies);
                        if last.is_none_or(|(known, _)| known != of) {
                            let mut missing = false;
                            for column in expression.columns() {
                                let of = policies.types[column].1.unwrap_or(Type::Json);
                                values[column] = Some(match row.new_value(column) {
                                    Seen::Missing => {
                                        missing = true;
                                        Err(Unsure)
                                    }
                                    Seen::Null => Ok(None),
                                    Seen::Text(text) => Value::of_column(Some(text), of),
                                });
                            }
                            last = Some((of, missing));
                        }
                        let column = |column: usize| values[column].clone().unwrap_or(Err(Unsure));
                        match expression.allows(&column, candidate.identity.claimed()) {
                            Ok(true) => None,
                            Ok(false) => continue,
                            // What was not logged cannot be decided about.
                            Err(Unsure) if last.is_some_and(|(_, missing)| missing) => continue,
                            Err(Unsure) => Some(Arc::clone(policies)),
                        }
                    } else {
                        let missing = (0..self.table.columns.len()).any(|column| {
                            row.new_value(column) == Seen::Missing
                                && policies.mentions(&self.table.columns[column].name)
                        });
                        if missing {
                            continue;
                        }
                        Some(Arc::clone(policies))
                    }
                }
            };
            if asked.is_empty() && policies.is_none() {
                receivers.push(number);
            } else {
                pending.push(Pending { entry: index, candidate: number, filters: asked, policies });
            }
        }
        checks
    }

    fn deliver(&self, entry: &Entry, receivers: &[usize], sink: &dyn Sink) {
        let mut by_view: BTreeMap<usize, Vec<SubscriptionId>> = BTreeMap::new();
        for &number in receivers {
            let candidate = &self.candidates[number];
            by_view.entry(candidate.view).or_default().extend(&candidate.group().ids);
        }
        for (view, ids) in by_view {
            let change = Arc::new(Change { data: self.row(entry).data(&self.views[view]) });
            metrics::counter!("realtime_changes_delivered_total").increment(ids.len() as u64);
            sink.change(&ids, &change);
        }
    }
}
