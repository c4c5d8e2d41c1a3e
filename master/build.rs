//! Links `aot-master` at a fixed address. It is started for every command, and a program of its size spends a third of
//! its start on relocations otherwise (one page copied for each 4 KiB of pointers). Libraries keep random addresses.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
