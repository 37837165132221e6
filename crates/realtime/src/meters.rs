//! What is counted for each frame: the registry is asked for these once, and not for each of hundreds of thousands.

use std::sync::LazyLock;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};

/// The metrics of every frame.
pub(crate) struct Meters {
    pub(crate) messages_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) lag: Histogram,
}

/// Made at the first use, which is after the process has set up its metrics.
pub(crate) static METERS: LazyLock<Meters> = LazyLock::new(|| Meters {
    messages_in: counter!("realtime_messages_in_total"),
    messages_out: counter!("realtime_messages_out_total"),
    bytes_out: counter!("realtime_bytes_out_total"),
    lag: histogram!("realtime_delivery_lag_seconds"),
});

/// Says what each metric is.
pub(crate) fn describe() {
    for (name, what) in [
        ("realtime_connections", "Open sockets."),
        ("realtime_channels", "Channels with at least one member on this server."),
        ("realtime_channel_members", "Members of channels: a socket counts in each of its channels."),
        ("realtime_followers", "Channels of sockets that follow changes of the database."),
        ("realtime_presence_channels", "Channels with presence, on all servers that this one hears."),
        ("realtime_presence_entries", "Who is present, on all servers that this one hears."),
        ("realtime_servers", "Servers of the project that this one hears, itself included."),
        ("realtime_bus_connected", "1 while other servers can be reached."),
    ] {
        describe_gauge!(name, what);
    }
    for (name, what) in [
        ("realtime_messages_in_total", "Messages of clients."),
        ("realtime_messages_out_total", "Messages to clients."),
        ("realtime_joins_total", "Channels joined."),
        ("realtime_refused_total", "What was refused, by reason."),
        ("realtime_cut_total", "Clients cut because they read too slowly."),
        ("realtime_bus_messages_total", "Messages of other servers, by subject."),
        ("realtime_bus_dropped_total", "Messages to or of other servers that were lost."),
    ] {
        describe_counter!(name, what);
    }
    describe_counter!("realtime_bytes_out_total", Unit::Bytes, "Bytes to clients.");
    describe_histogram!(
        "realtime_delivery_lag_seconds",
        Unit::Seconds,
        "How long frames waited until their socket took them, on one socket of sixteen."
    );
}
