//! What the system says about a process and about itself (Linux, `/proc`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// Ticks of `/proc/<pid>/stat` and `/proc/stat` in a second; fixed in Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of a process, as read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    /// Time on a processor by thread, in nanoseconds.
    threads: HashMap<u64, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// Processor time between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuUsed {
    /// User and kernel together, to the nanosecond.
    pub total: Duration,
    /// In the kernel, to a hundredth of a second.
    pub system: Duration,
}

impl Cpu {
    /// Reads the processor time of a process.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread that ends meanwhile is missing here and in the next reading alike.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let id = entry.file_name().to_string_lossy().parse();
            let run = text.split(' ').next().and_then(|t| t.parse().ok());
            if let (Ok(id), Some(run)) = (id, run) {
                threads.insert(id, run);
            }
        }
        let (user_ticks, system_ticks) = stat_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat cannot be read")))?;
        Ok(Self { threads, user_ticks, system_ticks })
    }

    /// What was used from `earlier` until now. Threads that ended in between do not count.
    pub fn since(&self, earlier: &Self) -> CpuUsed {
        let before = |id| earlier.threads.get(id).copied().unwrap_or(0);
        let nanoseconds = self.threads.iter().map(|(id, run)| run.saturating_sub(before(id))).sum();
        let ticks = |ticks: u64| Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND);
        let (user, system) =
            (ticks(self.user_ticks - earlier.user_ticks), ticks(self.system_ticks - earlier.system_ticks));
        let precise = Duration::from_nanos(nanoseconds);
        // Kernels without scheduler statistics report zeros.
        CpuUsed { total: if precise.is_zero() { user + system } else { precise }, system }
    }
}

/// Processor time of a process and its children, as read at one moment.
#[derive(Debug, Clone)]
pub struct Family {
    pid: u32,
    all: Vec<(u32, Cpu)>,
}

impl Family {
    /// Reads the processor time of a process and its children.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut all = vec![(pid, Cpu::of(pid)?)];
        for entry in fs::read_dir("/proc")? {
            let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            if parent == Some(pid)
                && let Ok(cpu) = Cpu::of(child)
            {
                all.push((child, cpu));
            }
        }
        Ok(Self { pid, all })
    }

    /// What all of them used from `earlier` until now. Processes that began or ended in between count from or to then.
    pub fn since(&self, earlier: &Self) -> Duration {
        self.all.iter().map(|(pid, cpu)| earlier.used_by(*pid, cpu)).sum()
    }

    /// The same of the process without its children.
    pub fn own_since(&self, earlier: &Self) -> Duration {
        self.all.iter().filter(|(pid, _)| *pid == self.pid).map(|(pid, cpu)| earlier.used_by(*pid, cpu)).sum()
    }

    fn used_by(&self, pid: u32, now: &Cpu) -> Duration {
        let nothing = Cpu::default();
        let before = self.all.iter().find(|(known, _)| *known == pid).map_or(&nothing, |(_, cpu)| cpu);
        now.since(before).total
    }
}

/// User and system ticks of a `stat` line.
fn stat_ticks(stat: &str) -> Option<(u64, u64)> {
    // The name of the program may contain anything, so count from behind its parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident memory of a process in KiB, shared pages included.
///
/// # Errors
/// When the process is gone.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    kib_of(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:")
        .ok_or_else(|| io::Error::other("no VmRSS in status: the process has ended"))
}

fn kib_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// How busy all processors are, as read at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    idle: u64,
    all: u64,
}

impl Load {
    /// Reads `/proc/stat`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn now() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?)
            .ok_or_else(|| io::Error::other("/proc/stat cannot be read"))
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|t| t.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { idle, all: ticks.iter().sum() })
    }

    /// Idle share since `earlier`, in percent of all processors.
    pub fn idle_since(&self, earlier: &Self) -> f64 {
        let all = (self.all - earlier.all).max(1);
        (self.idle - earlier.idle) as f64 * 100.0 / all as f64
    }
}

/// Processors that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The machine that measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            cpus: cpus(),
            memory_mib: kib_of(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "12 (a) b) c) S 1 12 12 0 -1 4194560 900 0 3 0 71 29 0 0 20 0 4 0 100 200 300";
        assert_eq!(stat_ticks(stat), Some((71, 29)));
        assert_eq!(stat_ticks("12 (x"), None);
    }

    #[test]
    fn idleness_counts_waiting_for_disks() {
        let before = Load::parse("cpu  100 0 100 100 0 0 0 0 0 0\ncpu0 …").unwrap();
        let after = Load::parse("cpu  150 0 100 140 10 0 0 0 0 0").unwrap();
        assert!((after.idle_since(&before) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn work_shows_up_as_processor_time_of_this_process() {
        let pid = std::process::id();
        let before = Cpu::of(pid).unwrap();
        let mut sum = 0_u64;
        let until = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < until {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 7);
        }
        assert!(Cpu::of(pid).unwrap().since(&before).total > Duration::from_millis(5));
        assert!(resident_kib(pid).unwrap() > 500);
    }
}
