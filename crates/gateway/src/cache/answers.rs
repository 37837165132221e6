//! Answers of this process that may be given again, and requests of which only one is made at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use tokio::sync::watch;

use super::CacheKey;
use crate::chat::Completion;
use crate::model::ModelRef;

/// Most bytes of answers that are kept.
const MOST: u64 = 64 << 20;

/// An answer, and who gave it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) completion: Completion,
    pub(crate) model: ModelRef,
    lasts: Duration,
}

/// What is known of a request that is being made.
type Flight = watch::Receiver<Option<Arc<Answer>>>;

/// Keeps answers for their time.
pub(crate) struct Answers {
    kept: Cache<CacheKey, Arc<Answer>>,
    flights: Arc<Mutex<HashMap<CacheKey, Flight>>>,
}

struct Lasts;

impl Expiry<CacheKey, Arc<Answer>> for Lasts {
    fn expire_after_create(&self, _: &CacheKey, answer: &Arc<Answer>, _: Instant) -> Option<Duration> {
        Some(answer.lasts)
    }
}

/// What to do about a request.
pub(crate) enum Found {
    /// It was answered before.
    Answer(Arc<Answer>),
    /// Make it; others wait for what becomes of it.
    Make(Leader),
}

/// Makes a request for all who wait for the same.
pub(crate) struct Leader {
    key: CacheKey,
    kept: Cache<CacheKey, Arc<Answer>>,
    flights: Arc<Mutex<HashMap<CacheKey, Flight>>>,
    sender: watch::Sender<Option<Arc<Answer>>>,
}

impl Default for Answers {
    fn default() -> Self {
        let weight = |_: &CacheKey, answer: &Arc<Answer>| {
            let text: usize = answer.completion.text().len() + answer.completion.reasoning.len();
            u32::try_from(text + 512).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().max_capacity(MOST).weigher(weight).expire_after(Lasts).build();
        Self { kept, flights: Arc::default() }
    }
}

impl Answers {
    /// Finds an answer, or waits for one that is on its way, or says who makes it. Whoever waited for a request that
    /// failed makes its own.
    pub(crate) async fn find(&self, key: CacheKey) -> Found {
        loop {
            let mut flight = {
                let mut flights = self.flights.lock().expect("no code panics while it holds this lock");
                // Looked at under the lock: a leader keeps its answer before it leaves.
                if let Some(answer) = self.kept.get(&key) {
                    return Found::Answer(answer);
                }
                match flights.get(&key) {
                    Some(flight) => flight.clone(),
                    None => {
                        let (sender, flight) = watch::channel(None);
                        flights.insert(key, flight);
                        let (kept, flights) = (self.kept.clone(), Arc::clone(&self.flights));
                        return Found::Make(Leader { key, kept, flights, sender });
                    }
                }
            };
            if let Ok(answer) = flight.wait_for(Option::is_some).await
                && let Some(answer) = answer.clone()
            {
                return Found::Answer(answer);
            }
        }
    }
}

impl Leader {
    /// Keeps the answer for so long, and gives it to those who wait.
    pub(crate) fn answered(self, completion: Completion, model: ModelRef, lasts: Duration) {
        let answer = Arc::new(Answer { completion, model, lasts });
        self.kept.insert(self.key, Arc::clone(&answer));
        self.sender.send_replace(Some(answer));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Those who wait see the sender go, and look again.
        self.flights.lock().expect("no code panics while it holds this lock").remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Scope;
    use crate::chat::ChatRequest;
    use crate::model::Task;

    fn key(text: &str) -> CacheKey {
        CacheKey::new(Scope::Public, &Task::new("t"), &[], &ChatRequest::new("", text))
    }

    fn model() -> ModelRef {
        ModelRef::new("offline", "rules")
    }

    #[tokio::test]
    async fn one_makes_it_and_all_get_it() {
        let answers = Arc::new(Answers::default());
        let Found::Make(leader) = answers.find(key("a")).await else { panic!("nothing is there yet") };
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move { matches!(answers.find(key("a")).await, Found::Answer(_)) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(matches!(answers.find(key("b")).await, Found::Make(_)), "another request is another's");
        leader.answered(Completion::default(), model(), Duration::from_secs(60));
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert!(answers.flights.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_request_that_failed_is_made_by_another() {
        let answers = Arc::new(Answers::default());
        let Found::Make(leader) = answers.find(key("a")).await else { panic!("nothing is there yet") };
        let waiting = tokio::spawn({
            let answers = Arc::clone(&answers);
            async move { matches!(answers.find(key("a")).await, Found::Make(_)) }
        });
        tokio::task::yield_now().await;
        drop(leader);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn an_answer_lasts_as_long_as_its_task_says() {
        let answers = Answers::default();
        let Found::Make(leader) = answers.find(key("a")).await else { panic!("nothing is there yet") };
        leader.answered(Completion::default(), model(), Duration::from_millis(30));
        assert!(matches!(answers.find(key("a")).await, Found::Answer(_)));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(matches!(answers.find(key("a")).await, Found::Make(_)));
    }
}
