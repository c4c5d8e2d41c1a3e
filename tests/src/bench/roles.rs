//! Which role a process of a bench plays.

use super::{agents, bare, copy, joining, operator};

/// Plays the role that this process was started for; `false` when it is the bench itself.
///
/// # Panics
/// When the role fails.
pub fn played() -> bool {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["bare-master", folder, count] => bare::play(folder.as_ref(), parse(count)),
        ["agents", folder, address, count, generation] => {
            agents::play(folder.as_ref(), address, parse(count), parse(generation));
        }
        ["joining", ca, address] => joining::play(ca.as_ref(), address),
        ["copy-sink", folder] => copy::play(folder.as_ref()),
        ["pinger", socket] => operator::play(socket.as_ref()),
        _ => return false,
    }
    true
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a role is given numbers")
}
