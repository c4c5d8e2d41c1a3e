//! The daemon's program as somebody meets it who types its name.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aot-masterd"))
        .args(args)
        .output()
        .expect("it runs")
}

#[test]
fn commands_are_left_to_the_command_line() {
    let refused = run(&["status"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "error: commands are for aot-master, which starts this program itself\n"
    );
}

/// ELF's e_type at byte 16: ET_DYN = 3, which the kernel loads at another address each time (elf(5)).
#[test]
fn what_listens_is_loaded_at_a_random_address() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_aot-masterd")).expect("reads");
    assert_eq!(&program[..4], b"\x7fELF");
    assert_eq!(program[16..18], [3, 0]);
}
