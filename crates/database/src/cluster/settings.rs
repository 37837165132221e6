//! The settings that Longhouse gives Postgres, in `data/longhouse.conf`.

use std::path::Path;

/// Whether commits survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every commit is on disk when it is confirmed.
    #[default]
    Full,
    /// Nothing waits for the disk: tests only, a crash of the machine loses the data.
    None,
}

/// Name of the file that Longhouse writes at each start.
pub(super) const FILE: &str = "longhouse.conf";

/// Appended once to `postgresql.conf`; what a person adds goes into `local.conf` and wins.
pub(super) const INCLUDE: &str = "\ninclude = 'longhouse.conf'\ninclude_if_exists = 'local.conf'\n";

/// First content of `local.conf`.
pub(super) const LOCAL: &str =
    "# Your own settings; they win over longhouse.conf and take effect at the next start.\n";

/// Content of `longhouse.conf`.
pub(super) fn render(port: u16, max_connections: u16, durability: Durability, log: &Path) -> String {
    let log = log.to_string_lossy().replace('\'', "''");
    let durable = match durability {
        Durability::Full => "on",
        Durability::None => "off",
    };
    // shared_buffers is address space: pages that are never used cost no memory, so an idle server stays small.
    // max_slot_wal_keep_size bounds what a forgotten replication slot can keep on disk.
    format!(
        "# Written by Longhouse at each start. Put your own settings into local.conf beside this file.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = {max_connections}
password_encryption = 'scram-sha-256'
shared_buffers = 128MB
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
max_slot_wal_keep_size = 4GB
fsync = {durable}
full_page_writes = {durable}
synchronous_commit = {durable}
logging_collector = on
log_destination = 'stderr'
log_directory = '{log}'
log_filename = 'postgres-%a.log'
log_file_mode = 0600
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_line_prefix = '%m [%p] %q%u@%d '
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_and_tests_do_not_wait_for_the_disk() {
        let text = render(5499, 100, Durability::Full, Path::new("/srv/o'brien/log"));
        assert!(text.contains("log_directory = '/srv/o''brien/log'"));
        assert!(text.contains("port = 5499\n") && text.contains("fsync = on"));
        assert!(render(1, 1, Durability::None, Path::new("/")).contains("fsync = off"));
    }
}
