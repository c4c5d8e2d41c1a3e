//! Thousands of simulated agents in one process; started by `aot_tests::fleet`, which tells it what to do by lines.

fn main() {
    aot_tests::fleet::play();
}
