//! Safety on the way: what users write is judged before a model is asked, what models answer before it is handed on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt as _, stream};
use uuid::Uuid;

use super::meter::blank;
use super::{Call, Gateway};
use crate::chat::{ChatEvent, ChatRequest, ChatStream, Content, Message};
use crate::configuration::{SafetyRules, TaskSettings};
use crate::error::{Error, Fault};
use crate::ledger::Outcome;
use crate::model::Modality;
use crate::moderation::ModerationRequest;
use crate::providers::unasked;
use crate::safety::{Action, Gate, Policy, Review, Verdict, judge, with_moderation};

impl SafetyRules {
    /// What they say.
    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::General => Policy::general(),
            Self::Children => Policy::children(),
        }
    }
}

/// What users said in a conversation. Our own system prompt is not among it.
pub(super) fn said(request: &ChatRequest) -> String {
    let texts = request.messages.iter().filter_map(|message| match message {
        Message::User(content) => Some(content.iter().filter_map(Content::text)),
        _ => None,
    });
    texts.flatten().collect::<Vec<_>>().join("\n")
}

impl Gateway {
    /// Lets a request pass whose text may, by the rules of its task. What is blocked is in the ledger as refused.
    pub(super) async fn admit(
        &self,
        call: &Call,
        id: Uuid,
        modality: Modality,
        settings: &TaskSettings,
        text: &str,
    ) -> Result<(), Error> {
        let Some(rules) = settings.safety else { return Ok(()) };
        let verdict = judge(text, &rules.policy());
        let verdict = self.moderated(call, settings, rules, verdict, text).await;
        self.review(call, id, "request", &verdict, text).await;
        let Err(error) = verdict.enforce("request") else { return Ok(()) };
        let mut entry = blank(call, id, modality);
        entry.outcome = Outcome::Refused;
        if let Err(error) = self.inner.ledger.record(entry).await {
            metrics::counter!("gateway_records_lost_total").increment(1);
            tracing::error!(%error, call = %id, "a refused call could not be recorded");
        }
        Err(error)
    }

    /// Adds what the task's moderation model finds, where it has one. A model that cannot be asked blocks.
    async fn moderated(
        &self,
        call: &Call,
        settings: &TaskSettings,
        rules: SafetyRules,
        verdict: Verdict,
        text: &str,
    ) -> Verdict {
        let Some(task) = &settings.moderation else { return verdict };
        // What is blocked already need not be asked about.
        if verdict.action == Action::Block || text.trim().is_empty() {
            return verdict;
        }
        let asked = Call { task: task.clone(), idempotency_key: None, restart: None, ..call.clone() };
        let request = ModerationRequest { texts: vec![text.to_owned()], picture: None };
        let found = Box::pin(self.moderate(&asked, request)).await;
        let found = found.and_then(|served| {
            let first = served.value.verdicts.into_iter().next();
            first.ok_or_else(|| unasked(&served.report.model, Fault::Malformed, "it gave no verdict").into())
        });
        with_moderation(verdict, &found, &rules.policy())
    }

    /// Puts what is not plainly fine into the review queue.
    async fn review(&self, call: &Call, id: Uuid, subject: &'static str, verdict: &Verdict, text: &str) {
        let action = match verdict.action {
            Action::Allow => return,
            Action::Review => "review",
            Action::Block => "block",
        };
        let category = verdict.findings.first().map_or("unknown", |finding| finding.category.as_str());
        metrics::counter!("gateway_safety_findings_total", "task" => call.task.to_string(), "subject" => subject,
            "action" => action, "category" => category)
        .increment(1);
        let Some(reviews) = self.inner.reviews.get() else { return };
        let review = Review {
            call: id,
            task: call.task.clone(),
            owner: call.owner.clone(),
            subject,
            verdict: verdict.clone(),
            excerpt: text.to_owned(),
        };
        if let Err(error) = reviews.note(review).await {
            metrics::counter!("gateway_records_lost_total").increment(1);
            tracing::error!(%error, call = %id, "a finding could not be put into the review queue");
        }
    }

    /// An answer of which only what was judged is handed on. `refused` tells the ledger why it was broken off.
    pub(super) fn guarded(
        &self,
        call: &Call,
        id: Uuid,
        settings: &TaskSettings,
        answer: ChatStream,
        refused: Arc<AtomicBool>,
    ) -> ChatStream {
        let Some(rules) = settings.safety else { return answer };
        let gate = gate_of(settings, rules);
        let guarding = Guarding {
            gateway: self.clone(),
            call: call.clone(),
            id,
            settings: settings.clone(),
            rules,
            gate,
            answer: Some(answer),
            due: VecDeque::new(),
            refused,
        };
        ChatStream::new(stream::unfold(guarding, async |mut guarding| {
            let event = Box::pin(guarding.next()).await?;
            Some((event, guarding))
        }))
    }
}

/// A moderation model judges whole answers, so nothing passes before the end.
fn gate_of(settings: &TaskSettings, rules: SafetyRules) -> Gate {
    match settings.moderation {
        Some(_) => Gate::holding(rules.policy()),
        None => Gate::new(rules.policy()),
    }
}

struct Guarding {
    gateway: Gateway,
    call: Call,
    id: Uuid,
    settings: TaskSettings,
    rules: SafetyRules,
    gate: Gate,
    /// `None` after the end.
    answer: Option<ChatStream>,
    /// Judged, and to be handed on.
    due: VecDeque<Result<ChatEvent, Error>>,
    refused: Arc<AtomicBool>,
}

impl Guarding {
    async fn next(&mut self) -> Option<Result<ChatEvent, Error>> {
        loop {
            if let Some(event) = self.due.pop_front() {
                return Some(event);
            }
            match self.answer.as_mut()?.next().await? {
                Ok(ChatEvent::Text(text)) => match self.gate.push(&text) {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => self.due.push_back(Ok(ChatEvent::Text(text))),
                    Err(verdict) => self.block(&verdict).await,
                },
                // Thoughts are for the model; nobody judges them.
                Ok(ChatEvent::Reasoning(_)) => {}
                Ok(ChatEvent::Restarted) => {
                    self.gate = gate_of(&self.settings, self.rules);
                    self.due.push_back(Ok(ChatEvent::Restarted));
                }
                Ok(event @ ChatEvent::Finished { .. }) => self.finish(event).await,
                other => self.due.push_back(other),
            }
        }
    }

    async fn finish(&mut self, event: ChatEvent) {
        let (rest, verdict) = match self.gate.finish() {
            Ok(finished) => finished,
            Err(verdict) => return self.block(&verdict).await,
        };
        let text = self.gate.whole().to_owned();
        let verdict = self.gateway.moderated(&self.call, &self.settings, self.rules, verdict, &text).await;
        if verdict.action == Action::Block {
            return self.block(&verdict).await;
        }
        self.gateway.review(&self.call, self.id, "answer", &verdict, &text).await;
        if !rest.is_empty() {
            self.due.push_back(Ok(ChatEvent::Text(rest)));
        }
        self.due.push_back(Ok(event));
    }

    /// Breaks the answer off.
    async fn block(&mut self, verdict: &Verdict) {
        self.refused.store(true, Ordering::Relaxed);
        // Frees the provider before anybody waits.
        self.answer = None;
        self.gateway.review(&self.call, self.id, "answer", verdict, self.gate.whole()).await;
        if let Err(error) = verdict.enforce("answer") {
            self.due.push_back(Err(error));
        }
    }
}
