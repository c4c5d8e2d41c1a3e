//! Several addresses of masters: which one an agent gets to, and what it remembers of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::fake::{MACHINE, Rig, until};

/// A master that is dead behind a port that still takes connections, as behind a load balancer.
struct DeadMaster {
    address: String,
    dialled: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl DeadMaster {
    /// One that this machine dials before `other`.
    async fn before(other: &str) -> Self {
        let mut later = Vec::new(); // held: their ports do not come again
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let both = [address.clone(), other.to_owned()];
            if aot_agent::inside::masters::permuted(MACHINE, &both)[0] != address {
                later.push(listener);
                continue;
            }
            let dialled = Arc::new(AtomicUsize::new(0));
            let mut tasks = JoinSet::new();
            let count = dialled.clone();
            tasks.spawn(async move {
                while let Ok(_hung_up) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            return Self {
                address,
                dialled,
                _server: tasks,
            };
        }
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }
}

async fn session(rig: &Rig, number: usize) {
    let what = format!("session {number}");
    let begun = rig
        .master
        .until(&what, |state| (state.sessions == number).then_some(()));
    begun.await;
}

fn until_kept(rig: &Rig, wanted: &str) {
    let path = rig.path("state/masters");
    until(|| std::fs::read_to_string(&path).is_ok_and(|text| text == wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_is_passed_over_and_the_one_that_named_itself_is_found_after_a_restart() {
    let mut rig = Rig::new().await;
    let alive = rig.address();
    let dead = DeadMaster::before(&alive).await;
    rig.dials = vec![alive.clone(), dead.address.clone()];
    rig.master.lock().masters = vec![alive.clone()];
    rig.start_agent();
    session(&rig, 1).await;
    assert_eq!(
        dead.dialled(),
        1,
        "to enrol; the session is where that worked"
    );
    until_kept(&rig, &format!("{alive}\n"));
    rig.kill_agent();

    rig.dials = vec![dead.address.clone()];
    rig.start_agent();
    session(&rig, 2).await;
    assert_eq!(dead.dialled(), 1, "what a master named goes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_are_dialled_when_all_that_a_master_named_are_dead() {
    let mut rig = Rig::new().await;
    let dead = DeadMaster::before(&rig.address()).await;
    rig.master.lock().masters = vec![dead.address.clone()];
    rig.start_agent();
    session(&rig, 1).await;
    until_kept(&rig, &format!("{}\n", dead.address));
    // In the same process as well.
    rig.master.cut();
    session(&rig, 2).await;
    assert_eq!(dead.dialled(), 1);
    rig.kill_agent();
    rig.start_agent();
    session(&rig, 3).await;
    assert_eq!(dead.dialled(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_list_of_masters_is_ignored_with_a_line_in_the_log_and_replaced() {
    let mut rig = Rig::new().await;
    let alive = rig.address();
    rig.master.lock().masters = vec![alive.clone()];
    std::fs::create_dir(rig.path("state")).unwrap();
    std::fs::write(rig.path("state/masters"), b"\xff\x00 no list").unwrap();
    rig.logs_to_file = true;
    rig.start_agent();
    session(&rig, 1).await;
    until_kept(&rig, &format!("{alive}\n"));
    let log = std::fs::read_to_string(rig.path("log")).unwrap();
    let lines = log.lines().filter(|line| line.contains("state/masters"));
    assert_eq!(lines.count(), 1, "{log}");
    assert!(log.contains("it is not a list"), "{log}");
}
