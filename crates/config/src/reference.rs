//! `docs/configuration.md`, from the table of keys.

use std::fmt::Write as _;

use crate::keys::{KEYS, Key, SECTIONS};
use crate::settings::Config;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `cargo xtask docs` from crates/config/src/keys/mod.rs. Do not edit. -->

Longhouse runs without any configuration. Where one is wanted, each setting comes from, later ones winning:

1. its default,
2. `longhouse.toml` in the working folder, or the file named by `--config` or `LONGHOUSE_CONFIG`,
3. the environment: `LONGHOUSE_<SECTION>__<KEY>`, e.g. `LONGHOUSE_SERVER__PORT=8080`, or a familiar name from the tables below;
   where several are set, the first of its row counts,
4. flags.

An empty variable counts as unset. Lists are arrays in the file and separated by commas in the environment.
Durations are written `250ms`, `30s`, `5m`, `1h30m`; sizes `64kB` (1000), `1MiB` (1024 · 1024), or in bytes.
Relative paths start at the working folder.

`longhouse config` prints the effective values and where each came from, secrets hidden. All mistakes are reported at once, at start.

```toml
# longhouse.toml
[server]
host = \"0.0.0.0\"
public_url = \"https://voice.example.com\"
request_timeout = \"45s\"

[receptionist]
max_calls = 200
```

Keep secrets in the environment rather than in the file.
";

/// The reference of every key as Markdown: what `docs/configuration.md` contains.
#[must_use]
pub fn reference() -> String {
    let defaults = Config::default();
    let mut page = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        let heading = if section.is_empty() { "Top level".to_owned() } else { format!("`[{section}]`") };
        let _ = write!(page, "\n## {heading}\n\n{about}\n\n");
        page.push_str("| key | value | default | environment | meaning |\n|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            row(&mut page, key, &defaults);
        }
    }
    page
}

fn row(page: &mut String, key: &Key, defaults: &Config) {
    let name = key.name.rsplit('.').next().unwrap_or(key.name);
    let default = (key.show)(defaults).map_or_else(|| key.unset.to_owned(), |value| format!("`{value}`"));
    let own = key.own_variable();
    let env = std::iter::once(own.as_str()).chain(key.env.iter().copied());
    let env = env.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(page, "| `{name}` | {} | {default} | {env} | {} |", (key.wanted)(), key.meaning);
}
