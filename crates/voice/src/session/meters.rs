//! What sessions count and measure, described for whoever reads `/metrics`.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Describes every metric of voice sessions and lets the unlabelled ones begin at zero, so that alarms have
/// something to compare with before the first event.
pub fn describe() {
    describe_gauge!("longhouse_voice_active_calls", "Calls in progress.");
    gauge!("longhouse_voice_active_calls").set(0);
    for (name, meaning) in [
        ("longhouse_voice_barge_ins_total", "Times a caller cut in while the agent was audible."),
        ("longhouse_voice_dial_failures_total", "Upstream sessions that could not be opened."),
        (
            "longhouse_voice_panics_total",
            "Sessions that panicked; each is a defect, and its call comes back.",
        ),
        (
            "longhouse_voice_shed_messages_total",
            "Caller audio dropped for an upstream that does not keep up.",
        ),
        ("longhouse_voice_recording_drops_total", "Pieces of recordings that a slow disk did not take."),
        ("longhouse_voice_samples_heard_total", "Samples of agents that were heard, over cascades."),
        ("longhouse_voice_samples_sent_total", "Samples of agents that were sent, over cascades."),
        ("longhouse_voice_unknown_upstream_events_total", "Upstream events that are not documented."),
        ("longhouse_voice_upstream_errors_total", "Errors that upstreams reported."),
        ("longhouse_voice_upstream_lost_total", "Upstream sessions that broke off."),
    ] {
        describe_counter!(name, meaning);
        counter!(name).increment(0);
    }
    describe_counter!("longhouse_voice_sessions_total", "Sessions that ended, by how.");
    describe_counter!(
        "longhouse_voice_takeovers_total",
        "Upstream sessions relieved before their cap; calm: at a turn boundary."
    );
    describe_histogram!(
        "longhouse_voice_first_audio_seconds",
        "From the open stream to the agent's first sound."
    );
    describe_histogram!(
        "longhouse_voice_reply_seconds",
        "From the end of the caller's speech to the agent's first sound."
    );
    describe_histogram!(
        "longhouse_voice_turn_seconds",
        "Over cascades: from the end of the person's speech to each stage of the answer."
    );
    describe_histogram!("longhouse_voice_tool_seconds", "Run time of tools.");
    describe_histogram!(
        "longhouse_voice_upstream_wait_seconds",
        "Time a call spent without a ready upstream."
    );
}
