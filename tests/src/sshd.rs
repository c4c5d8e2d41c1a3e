//! An sshd in local clones, and a key that lets in. This machine needs none: Debian's is unpacked for the clones.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Running;
use crate::rig::{LIMIT, Rig};
use crate::{debian, wait};

/// Where it listens, each at its clone's own address.
pub const PORT: u16 = 2022;

/// Debian's packages of it.
const PACKAGES: [&str; 2] = ["openssh-server", "libwrap0"];

/// The programs, and the key of who may log in as root.
pub struct Sshd {
    /// What clones lack of them, as a tree.
    brought: Option<PathBuf>,
    program: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

impl Sshd {
    /// What `AOT_TEST_SSHD` names, else what is installed, else what is unpacked below `cache`; and a key for this test.
    ///
    /// # Errors
    /// When there is none, or no ssh here.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn found(rig: &Rig, cache: &Path) -> Result<Self, String> {
        for program in ["ssh", "ssh-keygen", "scp", "sftp"] {
            let mut find = Command::new("sh");
            find.args(["-c", &format!("command -v {program}")]);
            let found = find.output();
            if !found.is_ok_and(|output| output.status.success()) {
                return Err(format!("there is no {program} here"));
            }
        }
        let installed = PathBuf::from("/usr/sbin/sshd");
        let named = std::env::var_os("AOT_TEST_SSHD").map(PathBuf::from);
        let here = named.or_else(|| installed.exists().then(|| installed.clone()));
        let brought = match here {
            Some(_) => None,
            None => Some(debian::unpacked(cache, "sshd", &PACKAGES)?),
        };
        let key = rig.dir().join("sshd-key");
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key);
        Running::start(keygen).finish(LIMIT).expect(0);
        Ok(Self {
            brought,
            program: here.unwrap_or(installed),
            key,
        })
    }

    /// Starts it in all clones of a cluster, each at its own address, and waits until it listens.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub fn start(&self, rig: &Rig, cluster: &str) {
        let ask = |words: &[&str]| rig.cli(["--json", "--cluster", cluster].iter().chain(words));
        if let Some(tree) = &self.brought {
            let tree = format!("{}/usr/.", tree.display());
            ask(&["cp", &tree, "*:/usr/"]).expect(0);
        }
        let public = fs::read_to_string(self.key.with_extension("pub")).expect("beside the key");
        let prepare = format!(
            "grep -q ^sshd: /etc/passwd || echo sshd:x:22:22::/run/sshd:/bin/false >> /etc/passwd
             mkdir -p /run/sshd /root/.ssh && echo '{}' >> /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys",
            public.trim()
        );
        ask(&["exec", "*", "--", "sh", "-c", &prepare]).expect(0);
        let status = ask(&["status"]);
        for line in status.expect(0).json() {
            let (Some(name), Some(address)) = (line["name"].as_str(), line["private_ip"].as_str())
            else {
                continue;
            };
            let serve = format!(
                "exec {} -f /dev/null -D -e -p {PORT} -o ListenAddress={address} -o PermitRootLogin=yes -o UsePAM=no -o StrictModes=no \
                 -o Subsystem='sftp internal-sftp' -o MaxStartups=100 -o MaxSessions=100",
                self.program.display()
            );
            ask(&["exec", "--detach", name, "--", "sh", "-c", &serve]).expect(0);
            let listens = || TcpStream::connect((address, PORT)).is_ok();
            wait::until(listens, LIMIT, "sshd listens");
        }
    }
}
