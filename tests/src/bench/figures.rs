//! Times, sizes, and whether they are what was wanted. Prints; decides nothing.

use std::fs;
use std::time::Instant;

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// The middle one of this many times.
pub fn median(rounds: usize, mut time: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..rounds.max(1)).map(|_| time()).collect();
    quantile(&mut times, 0.5)
}

/// The value that a share `q` of them does not exceed (nearest rank); 0 when there are none.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * q).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Prints a figure beside its goal, which it should not exceed.
pub fn at_most(what: &str, value: f64, goal: f64, unit: &str) {
    let word = if value <= goal { "met" } else { "MISSED" };
    println!("goal {word}: {what}: {value:.2} {unit}, wanted at most {goal:.2} {unit}");
}

/// Prints a figure beside its goal, which it should reach.
pub fn at_least(what: &str, value: f64, goal: f64, unit: &str) {
    let word = if value >= goal { "met" } else { "MISSED" };
    println!("goal {word}: {what}: {value:.2} {unit}, wanted at least {goal:.2} {unit}");
}

/// Memory of a process in KiB: proportional (PSS) and resident (RSS), as proc(5) smaps_rollup says; 0 when it is gone.
pub fn memory_kib(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.unwrap_or(0.0)
    };
    (field("Pss:"), field("Rss:"))
}

/// Most resident memory that a process ever had, in KiB (proc_pid_status(5), VmHWM); 0 when it is gone.
pub fn peak_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Resident memory of a process in KiB (proc(5), status); 0 when it is gone. Quicker than [`memory_kib`].
pub fn resident_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0.0)
}

/// Seconds of processor time that a process has used, user and system (proc(5), stat fields 14 and 15, 100 a second).
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// A number from the environment, or its default.
///
/// # Panics
/// When the variable is not a number.
pub fn number(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("the variable is a number"),
        Err(_) => default,
    }
}
