//! Several addresses of masters: which one an agent gets to, and what it remembers of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aot_proto::limits::MIN_RECONNECT_SPREAD;
use aot_proto::route::Route;
use aot_proto::v1::agent_message::Body as Up;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fake::{MACHINE, Rig, until};

/// An address of a master that counts who dials it.
struct Door {
    address: String,
    dialled: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Door {
    /// Takes connections and drops them, as a load balancer does before a master that is dead.
    async fn dead(other: &str) -> Self {
        Self::before(other, |stream| async move { drop(stream) }).await
    }

    /// Leads to the master at `other` too.
    async fn alive(other: &str) -> Self {
        let to = other.to_owned();
        Self::before(other, move |mut stream| {
            let to = to.clone();
            async move {
                let mut master = TcpStream::connect(to).await.unwrap();
                // Either side may break it off.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut master).await;
            }
        })
        .await
    }

    /// At an address that this machine dials before `other`.
    async fn before<F>(other: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
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
                let mut served = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    served.spawn(serve(stream));
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
    let dead = Door::dead(&alive).await;
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
    let dead = Door::dead(&rig.address()).await;
    rig.master.lock().masters = vec![dead.address.clone()];
    rig.start_agent();
    session(&rig, 1).await;
    until_kept(&rig, &format!("{}\n", dead.address));
    rig.master.cut();
    session(&rig, 2).await;
    assert_eq!(dead.dialled(), 0, "the one that worked goes first");
    rig.kill_agent();
    rig.start_agent();
    session(&rig, 3).await;
    assert_eq!(dead.dialled(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_version_is_not_known_is_passed_over_and_learns_why() {
    let mut rig = Rig::new().await;
    let first = Door::alive(&rig.address()).await;
    rig.dials.push(first.address.clone());
    rig.master.lock().strange_welcomes = 1;
    rig.master.lock().masters = rig.dials.clone();
    rig.start_agent();
    session(&rig, 2).await;
    assert_eq!(first.dialled(), 2, "to enrol, and for the first session");
    let said = rig.master.until("why the first session ended", |state| {
        state.received.iter().find_map(|up| match up {
            Up::GoingAway(away) => Some(away.reason.clone()),
            _ => None,
        })
    });
    let said = said.await;
    assert!(said.contains("upgrade"), "{said}");
    // Where a session was welcomed, the next one is looked for.
    until_kept(&rig, &format!("{}\n", rig.dials.join("\n")));
    rig.master.cut();
    session(&rig, 3).await;
    assert_eq!(first.dialled(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_goes_is_tried_alone_before_its_agents_go_to_the_others() {
    let mut rig = Rig::new().await;
    let door = Door::alive(&rig.address()).await;
    rig.dials.push(door.address.clone());
    rig.master.lock().masters = rig.dials.clone();
    rig.logs_to_file = true;
    rig.start_agent();
    session(&rig, 1).await;
    assert_eq!(door.dialled(), 2, "to enrol, and for the session");
    until_kept(&rig, &format!("{}\n", rig.dials.join("\n"))); // it was welcomed
    // One that has hardly begun would not be followed by a try at once.
    tokio::time::sleep(MIN_RECONNECT_SPREAD).await;
    drop(door);
    session(&rig, 2).await;
    let log = std::fs::read_to_string(rig.path("log")).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("no master; trying again"));
    assert_eq!(lines.count(), 1, "the other was tried at once: {log}");
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

/// What the agent's connections were opened by so far.
fn server_names(rig: &Rig) -> Vec<Option<String>> {
    rig.master.lock().server_names.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_name_the_route_once_the_cluster_is_known() {
    let mut rig = Rig::new().await;
    let by_certificate = Some(Route::of(&"c".parse().unwrap()).server_name());
    rig.start_agent();
    session(&rig, 1).await;
    let names = server_names(&rig);
    assert_eq!(names, [None, by_certificate.clone()], "enrolment, session");
    rig.kill_agent();
    rig.start_agent();
    session(&rig, 2).await;
    assert_eq!(server_names(&rig).pop(), Some(by_certificate));
    rig.kill_agent();

    let other = Route::of(&"other".parse().unwrap());
    rig.more_settings = format!("route = \"{other}\"");
    rig.start_agent();
    session(&rig, 3).await;
    assert_eq!(server_names(&rig).pop(), Some(Some(other.server_name())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_epoch_is_over_is_left_also_after_a_restart() {
    let mut rig = Rig::new().await;
    rig.master.change(|state| state.epoch = 4);
    rig.start_agent();
    session(&rig, 1).await;
    let path = rig.path("state/epoch");
    until(|| std::fs::read_to_string(&path).is_ok_and(|text| text == "m c 4\n"));
    rig.kill_agent();

    rig.master.change(|state| state.epoch = 3);
    rig.start_agent();
    let said = rig.master.until("why the session ended", |state| {
        state.received.iter().find_map(|up| match up {
            Up::GoingAway(away) => Some(away.reason.clone()),
            _ => None,
        })
    });
    let said = said.await;
    assert!(said.contains("epoch is 3"), "{said}");
    rig.master.change(|state| state.epoch = 5);
    until(|| std::fs::read_to_string(&path).is_ok_and(|text| text == "m c 5\n"));
}
