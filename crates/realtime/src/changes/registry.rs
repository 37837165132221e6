//! The subscriptions of this server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use longhouse_database::Claims;

use super::filter::{self, Condition};
use super::identity::{Identities, Identity};
use super::pgoutput::Operation;
use super::{SubscriptionId, Wanted};

/// What a subscription is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    /// None: all.
    operation: Option<Operation>,
    /// None: all.
    pub(super) schema: Option<String>,
    /// None: all.
    pub(super) table: Option<String>,
    pub(super) conditions: Vec<Condition>,
    /// None: all columns.
    pub(super) select: Option<Vec<String>>,
}

impl Selection {
    /// Reads what a client wants.
    ///
    /// # Errors
    /// What is wrong, for the client.
    pub(super) fn parse(wanted: &Wanted) -> Result<Self, String> {
        let star = |name: &Option<String>| name.clone().filter(|name| name != "*");
        let (schema, table) = match (&wanted.schema, &wanted.table) {
            (None, None) => {
                return Err(
                    "No subscription params provided. Please provide at least a `schema` or `table` to \
                            subscribe to: {}"
                        .into(),
                );
            }
            (None, Some(_)) => (Some("public".to_owned()), star(&wanted.table)),
            (Some(_), _) => (star(&wanted.schema), star(&wanted.table)),
        };
        let operation = match wanted.event.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("INSERT") => Some(Operation::Insert),
            Some("UPDATE") => Some(Operation::Update),
            Some("DELETE") => Some(Operation::Delete),
            _ => None,
        };
        let conditions = filter::parse(wanted.filter.as_deref().unwrap_or_default())
            .map_err(|message| format!("Error parsing `filter` params: {message}"))?;
        let select = wanted.select.clone().filter(|columns| !columns.is_empty());
        if select.is_some() && (schema.is_none() || table.is_none()) {
            return Err("Column selection is not supported for wildcard subscriptions. Provide an explicit \
                        schema and table name."
                .into());
        }
        Ok(Self { operation, schema, table, conditions, select })
    }

    /// Whether it is about this table.
    pub(super) fn concerns(&self, schema: &str, table: &str) -> bool {
        self.schema.as_deref().is_none_or(|wanted| wanted == schema)
            && self.table.as_deref().is_none_or(|wanted| wanted == table)
    }

    pub(super) fn wants(&self, operation: Operation) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
    }

    /// As messages to the client name it.
    pub(super) fn describe(&self) -> String {
        let all = || "*".to_owned();
        let filters: Vec<_> = self
            .conditions
            .iter()
            .map(|c| {
                format!(
                    "{}{} {} {:?}",
                    if c.negate { "not " } else { "" },
                    c.column,
                    c.operator.symbol(),
                    c.value
                )
            })
            .collect();
        format!(
            "event: {}, schema: {}, table: {}, filters: [{}], select: {}",
            self.operation.map_or("*", Operation::name),
            self.schema.clone().unwrap_or_else(all),
            self.table.clone().unwrap_or_else(all),
            filters.join(", "),
            self.select.as_ref().map_or_else(all, |columns| columns.join(", ")),
        )
    }
}

#[derive(Debug)]
struct Subscribed {
    /// With all claims.
    whole: Arc<Identity>,
    /// With those that matter.
    essential: Arc<Identity>,
    selection: Arc<Selection>,
}

/// Subscriptions that always receive the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) identity: Arc<Identity>,
    pub(super) selection: Arc<Selection>,
    pub(super) ids: Vec<SubscriptionId>,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Registry {
    subscriptions: HashMap<SubscriptionId, Subscribed>,
    identities: Identities,
    /// Changes with every change.
    version: u64,
    groups: Option<(bool, Arc<Vec<Group>>)>,
    roles: Option<Arc<BTreeSet<String>>>,
}

impl Registry {
    pub(super) fn insert(&mut self, id: SubscriptionId, claims: &Claims, selection: Arc<Selection>) {
        let (whole, essential) = self.identities.of(claims);
        self.subscriptions.insert(id, Subscribed { whole, essential, selection });
        self.changed();
    }

    pub(super) fn remove(&mut self, ids: &[SubscriptionId]) {
        for id in ids {
            self.subscriptions.remove(id);
        }
        self.changed();
    }

    pub(super) fn renew(&mut self, ids: &[SubscriptionId], claims: &Claims) {
        let (whole, essential) = self.identities.of(claims);
        let mut changed = false;
        for id in ids {
            if let Some(subscribed) = self.subscriptions.get_mut(id) {
                changed |= !Arc::ptr_eq(&subscribed.whole, &whole);
                subscribed.whole = Arc::clone(&whole);
                subscribed.essential = Arc::clone(&essential);
            }
        }
        if changed {
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.version += 1;
        self.groups = None;
        self.roles = None;
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn ids(&self) -> Vec<SubscriptionId> {
        self.subscriptions.keys().copied().collect()
    }

    pub(super) fn roles(&mut self) -> Arc<BTreeSet<String>> {
        let all =
            || self.subscriptions.values().map(|subscribed| subscribed.whole.role().to_owned()).collect();
        Arc::clone(self.roles.get_or_insert_with(|| Arc::new(all())))
    }

    /// Subscriptions by what they receive. `sessions`: claims that differ between a user's sessions matter.
    pub(super) fn groups(&mut self, sessions: bool) -> Arc<Vec<Group>> {
        if let Some((of, groups)) = &self.groups
            && *of == sessions
        {
            return Arc::clone(groups);
        }
        let mut places: HashMap<(*const Identity, &Selection), usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for (&id, subscribed) in &self.subscriptions {
            let identity = if sessions { &subscribed.whole } else { &subscribed.essential };
            let place = *places.entry((Arc::as_ptr(identity), &*subscribed.selection)).or_insert_with(|| {
                let (identity, selection) = (Arc::clone(identity), Arc::clone(&subscribed.selection));
                groups.push(Group { identity, selection, ids: Vec::new() });
                groups.len() - 1
            });
            groups[place].ids.push(id);
        }
        let groups = Arc::new(groups);
        self.groups = Some((sessions, Arc::clone(&groups)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn wanted(event: Option<&str>, schema: Option<&str>, table: Option<&str>) -> Wanted {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Wanted { event: own(event), schema: own(schema), table: own(table), ..Wanted::default() }
    }

    #[rstest]
    #[case(
        Some("*"),
        Some("public"),
        Some("notes"),
        "event: *, schema: public, table: notes, filters: [], select: *"
    )]
    #[case(
        Some("insert"),
        None,
        Some("notes"),
        "event: INSERT, schema: public, table: notes, filters: [], select: *"
    )]
    #[case(None, Some("*"), None, "event: *, schema: *, table: *, filters: [], select: *")]
    fn what_clients_want_is_read_as_supabase_reads_it(
        #[case] event: Option<&str>,
        #[case] schema: Option<&str>,
        #[case] table: Option<&str>,
        #[case] expected: &str,
    ) {
        assert_eq!(Selection::parse(&wanted(event, schema, table)).unwrap().describe(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        let message = Selection::parse(&Wanted::default()).unwrap_err();
        assert!(message.starts_with("No subscription params provided."), "{message}");
        let mut selective = wanted(None, Some("public"), None);
        selective.select = Some(vec!["id".into()]);
        assert!(Selection::parse(&selective).unwrap_err().contains("wildcard"));
    }

    #[test]
    fn equal_subscriptions_share_a_group_until_one_gets_other_claims() {
        let mut registry = Registry::default();
        let selection = Arc::new(Selection::parse(&wanted(None, Some("*"), None)).unwrap());
        for id in 0..3 {
            registry.insert(SubscriptionId(id), &Claims::anon(), Arc::clone(&selection));
        }
        assert_eq!(registry.groups(false).len(), 1);
        registry.renew(&[SubscriptionId(1)], &Claims::user(uuid::Uuid::nil()));
        assert_eq!(registry.groups(false).len(), 2);
        registry.remove(&[SubscriptionId(1), SubscriptionId(9)]);
        let groups = registry.groups(false);
        assert_eq!((groups.len(), groups[0].ids.len(), registry.len()), (1, 2, 2));
    }
}
