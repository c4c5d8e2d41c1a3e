//! Simulated agents, thousands in one process: the real agent's decisions (which master is dialled, when again, what a session
//! says) over real TLS, and runs that only print. No machine, no disk: what an agent knows it knows until the process ends.

mod agent;
mod board;
mod dial;
mod facts;
mod orders;
mod runs;
mod session;

use std::io::BufRead;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use board::{AgentsState, SinceMark};
pub use runs::{PRINT, printed};

use super::plan::AgentsPlan;
use agent::Agent;
use board::Board;
use orders::AgentOrders;

/// Agents that come for the first time at once.
const FIRST: usize = 64;

/// What all agents of the process share.
struct Shared {
    plan: AgentsPlan,
    board: Board,
    orders: AgentOrders,
    /// Turns to come for the first time: all at once is the storm after a master's death, and no begin of a test.
    first: Semaphore,
}

/// Plays agents as the first argument says, and does what standard input asks for, until that is closed.
///
/// # Panics
/// When it was not started for that.
pub fn play() {
    let plan = std::env::args().nth(1).expect("a plan");
    let plan: AgentsPlan = serde_json::from_str(&plan).expect("a plan");
    aot_host::descriptors::raise().expect("up to the hard limit");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let shared = Arc::new(Shared {
        board: Board::new(&plan),
        plan,
        orders: AgentOrders::default(),
        first: Semaphore::new(FIRST),
    });
    let tasks = TaskTracker::new();
    let identities = dial::Identities::open(&shared.plan.certificates);
    for at in 0..shared.plan.count() {
        let agent = Agent::new(shared.clone(), &identities, at);
        tasks.spawn_on(agent.live(), runtime.handle());
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match &*line {
            "mark" => {
                shared.board.mark();
                println!("marked");
            }
            "state" => {
                let state = serde_json::to_string(&shared.board.state());
                println!("{}", state.expect("it is plain"));
            }
            other => match shared.orders.take(other) {
                true => println!("told"),
                false => panic!("nobody asks for {other:?}"),
            },
        }
    }
    runtime.shutdown_background();
}
