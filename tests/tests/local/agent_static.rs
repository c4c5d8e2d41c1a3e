//! The agent that is handed out runs where there is nothing: no libc, no shell, no /proc.

use std::path::PathBuf;
use std::process::Command;

use aot_tests::programs;

/// Where `cargo agent` puts it: beside the folder of this test's own profile.
fn agent() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let agent = target.join("agent/aot-agent");
    assert!(
        agent.exists(),
        "{} is missing: run `cargo agent` first",
        agent.display()
    );
    agent
}

#[test]
fn it_runs_in_a_chroot_that_has_no_libc() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: chroot needs root");
        return;
    }
    let root = tempfile::tempdir().expect("a folder");
    let inside = root.path().join("aot-agent");
    programs::install(&agent(), &inside);
    let output = Command::new("chroot")
        .arg(root.path())
        .args(["/aot-agent", "version"])
        .output()
        .expect("chroot starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn it_asks_for_no_loader() {
    let bytes = std::fs::read(agent()).expect("reads");
    assert_eq!(&bytes[..4], b"\x7fELF");
    let offset = |at: usize, len: usize| {
        let field = &bytes[at..at + len];
        field
            .iter()
            .rev()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    // ELF-64 header: e_phoff at 32, e_phentsize at 54, e_phnum at 56; p_type is a header's first word (elf(5)).
    let (start, size, count) = (offset(32, 8), offset(54, 2), offset(56, 2));
    let kinds: Vec<usize> = (0..count).map(|n| offset(start + n * size, 4)).collect();
    const PT_INTERP: usize = 3;
    assert!(
        !kinds.is_empty() && !kinds.contains(&PT_INTERP),
        "{kinds:?}"
    );
}
