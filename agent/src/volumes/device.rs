//! Finds the block device of a volume, by its id. Called by `mod`; opens nothing, changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mountinfo::Dev;
use super::request::VolumeRequest;
use super::system::System;
use super::{CHECK_AGAIN, VolumePaths};

/// How long udev has to make its link, once the device is there. A node's own name is not the same after each reboot.
const UDEV_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundDevice {
    /// The node itself, without links.
    pub node: PathBuf,
    /// By which name it is to be mounted.
    pub what: PathBuf,
    pub dev: Dev,
    /// Whether `what` names the same volume after a reboot.
    pub lasting: bool,
}

/// A volume without a device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It did not appear.
    #[error(
        "no device after {} s: neither {} nor an NVMe device with serial {serial} nor {names}; is it attached to this machine?",
        waited.as_secs(),
        link.display()
    )]
    Missing {
        /// How long it was waited for.
        waited: Duration,
        /// udev's link.
        link: PathBuf,
        /// Serial number of its NVMe device.
        serial: String,
        /// Names by the mapping, in words.
        names: String,
    },
}

/// Waits for the device of a volume, until `appear_by`; it is searched for at least once.
///
/// # Errors
/// When it has not appeared in time.
pub(crate) fn wait_for(
    system: &impl System,
    paths: &VolumePaths,
    request: &VolumeRequest,
    appear_by: Instant,
) -> Result<FoundDevice, Error> {
    let has_udev = paths.run.join("udev/control").exists();
    let mut link_by = None;
    loop {
        let found = find(system, paths, request);
        let now = Instant::now();
        match found {
            Some(found) if found.lasting || !has_udev => return Ok(found),
            Some(found) => {
                let grace = UDEV_GRACE.min(paths.appear);
                if now >= *link_by.get_or_insert(now + grace) {
                    return Ok(found);
                }
            }
            None if now >= appear_by => return Err(missing(paths, request)),
            None => {}
        }
        system.wait(&paths.dev, CHECK_AGAIN.min(paths.appear));
    }
}

/// A partition on a device, when the kernel knows one.
pub(crate) fn partition(paths: &VolumePaths, dev: Dev) -> Option<String> {
    fs::read_dir(paths.sys.join(format!("dev/block/{dev}")))
        .ok()?
        .filter_map(Result::ok)
        .find(|name| name.path().join("partition").exists())
        .and_then(|name| name.file_name().into_string().ok())
}

fn missing(paths: &VolumePaths, request: &VolumeRequest) -> Error {
    let names = candidates(&request.device);
    let names: Vec<String> = names
        .iter()
        .map(|name| paths.dev.join(name).display().to_string())
        .collect();
    Error::Missing {
        waited: paths.appear,
        link: link(paths, &request.volume_id),
        serial: serial(&request.volume_id),
        names: match names.is_empty() {
            true => format!("a name from the mapping ({:?})", request.device),
            false => names.join(" nor "),
        },
    }
}

/// Searches once: udev's link, then the serial numbers of NVMe devices, then the names of the mapping.
pub(crate) fn find(
    system: &impl System,
    paths: &VolumePaths,
    request: &VolumeRequest,
) -> Option<FoundDevice> {
    let serial = serial(&request.volume_id);
    let link = link(paths, &request.volume_id);
    // The surest first: udev's link holds after a reboot too, a serial number until then; a mapped name may be another's.
    by_name(system, &link, true)
        .or_else(|| by_serial(system, paths, &serial))
        .or_else(|| {
            candidates(&request.device).iter().find_map(|name| {
                let path = paths.dev.join(name);
                let found = by_name(system, &path, true)?;
                let is_link = found.node != path;
                let node = found.node.file_name()?.to_str()?.to_owned();
                // Nitro gives names in the order of attachment: the name may be another volume's.
                let device = paths.sys.join(format!("dev/block/{}", found.dev));
                let other = serial_of(&device).filter(|have| *have != serial);
                let lasting = is_link || !node.starts_with("nvme");
                other.is_none().then_some(FoundDevice { lasting, ..found })
            })
        })
}

fn by_name(system: &impl System, path: &Path, lasting: bool) -> Option<FoundDevice> {
    let node = fs::canonicalize(path).ok()?;
    let dev = system.number(&node)?;
    Some(FoundDevice {
        node,
        what: path.to_owned(),
        dev,
        lasting,
    })
}

fn by_serial(system: &impl System, paths: &VolumePaths, serial: &str) -> Option<FoundDevice> {
    let blocks = fs::read_dir(paths.sys.join("block")).ok()?;
    blocks
        .filter_map(|block| block.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nvme") && name.ends_with("n1"))
        .filter(|name| serial_of(&paths.sys.join("block").join(name)).as_deref() == Some(serial))
        .find_map(|name| by_name(system, &paths.dev.join(name), false))
}

/// The volume that an NVMe device says it is, by its folder in /sys; `None` for devices of other kinds.
fn serial_of(device: &Path) -> Option<String> {
    aot_host::files::trimmed(&device.join("device/serial"))
        .filter(|serial| serial.starts_with("vol"))
}

/// The link that udev makes of model and serial number (EBS User Guide, "Map Amazon EBS volumes to NVMe device names").
pub(crate) fn link(paths: &VolumePaths, volume_id: &str) -> PathBuf {
    let name = format!("nvme-Amazon_Elastic_Block_Store_{}", serial(volume_id));
    paths.dev.join("disk/by-id").join(name)
}

/// The serial number of a volume's NVMe device: its id without the dash.
fn serial(volume_id: &str) -> String {
    volume_id.replacen('-', "", 1)
}

/// Names in /dev that a mapping's name may have come to: kernels call Xen's disks xvdf where EC2 says sdf, and some
/// images the other way round (EC2 User Guide, "Device names for volumes").
pub(crate) fn candidates(device: &str) -> Vec<String> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Vec::new();
    }
    let other = match (name.strip_prefix("xvd"), name.strip_prefix("sd")) {
        (Some(letters), _) => Some(format!("sd{letters}")),
        (_, Some(letters)) => Some(format!("xvd{letters}")),
        _ => None,
    };
    std::iter::once(name.to_owned()).chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::fake::Fake;

    #[test]
    fn the_mappings_name_has_two_prefixes() {
        for (device, want) in [
            ("/dev/sdf", &["sdf", "xvdf"][..]),
            ("/dev/xvdf", &["xvdf", "sdf"]),
            ("xvdba", &["xvdba", "sdba"]),
            ("/dev/sda1", &["sda1", "xvda1"]),
            ("/dev/hdb", &["hdb"]),
            ("", &[]),
            ("/dev/", &[]),
            ("/dev/../etc/passwd", &[]),
            ("/dev/mapper/x", &[]),
        ] {
            assert_eq!(candidates(device), want, "{device}");
        }
    }

    fn located(fake: &Fake) -> Option<(String, String, bool)> {
        let dev = fake.paths.dev.canonicalize().unwrap();
        let name = |path: &Path| {
            let rest = path
                .strip_prefix(&fake.paths.dev)
                .or(path.strip_prefix(&dev));
            rest.unwrap().display().to_string()
        };
        find(fake, &fake.paths, &fake.request("/data", "ext4"))
            .map(|found| (name(&found.node), name(&found.what), found.lasting))
    }

    fn wait(fake: &Fake) -> Result<FoundDevice, Error> {
        let by = Instant::now() + fake.paths.appear;
        wait_for(fake, &fake.paths, &fake.request("/data", "ext4"), by)
    }

    fn found(node: &str, what: &str, lasting: bool) -> Option<(String, String, bool)> {
        Some((node.to_owned(), what.to_owned(), lasting))
    }

    #[test]
    fn udevs_link_goes_before_all() {
        let fake = Fake::new();
        assert_eq!(located(&fake), None);
        fake.device("nvme7n1", 7);
        fake.serial("nvme7n1", "vol0a1b                 \n");
        let by_id = "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b";
        fake.link(by_id, "../../nvme7n1");
        assert_eq!(located(&fake), found("nvme7n1", by_id, true));
    }

    #[test]
    fn without_udev_the_serial_number_decides() {
        let fake = Fake::new();
        for (name, minor, serial) in [
            ("nvme0n1", 0, "vol0dead\n"),
            ("nvme1n1", 1, "vol0a1b  \n"),
            ("nvme2n1", 2, "AWS123\n"),
        ] {
            fake.device(name, minor);
            fake.serial(name, serial);
        }
        assert_eq!(located(&fake), found("nvme1n1", "nvme1n1", false));
    }

    #[test]
    fn a_link_to_nowhere_is_passed_over() {
        let fake = Fake::new();
        fake.link(
            "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b",
            "../../nvme7n1",
        );
        fake.device("xvdf", 5);
        assert_eq!(located(&fake), found("xvdf", "xvdf", true));
    }

    #[test]
    fn xen_and_the_lab_have_the_mappings_name() {
        let fake = Fake::new();
        fake.device("xvdf", 5);
        fake.link("sdf", "xvdf");
        assert_eq!(located(&fake), found("xvdf", "sdf", true), "mapped as sdf");
    }

    #[test]
    fn a_mapped_name_that_leads_to_another_volume_is_not_used() {
        let fake = Fake::new();
        fake.device("nvme1n1", 1);
        fake.serial("nvme1n1", "vol0dead\n");
        fake.link("sdf", "nvme1n1");
        assert_eq!(located(&fake), None);
    }

    #[test]
    fn what_is_not_a_block_device_is_not_used() {
        let fake = Fake::new();
        fs::write(fake.paths.dev.join("sdf"), "a file").unwrap();
        assert_eq!(located(&fake), None);
    }

    #[test]
    fn a_device_may_come_late() {
        let fake = Fake::new();
        fake.later(|fake| drop(fake.device("xvdf", 5)));
        let found = wait(&fake).unwrap();
        assert_eq!(found.dev.minor, 5);
    }

    #[test]
    fn udev_has_a_moment_for_its_link() {
        let fake = Fake::new();
        fs::create_dir_all(fake.paths.run.join("udev")).unwrap();
        fs::write(fake.paths.run.join("udev/control"), "").unwrap();
        fake.device("nvme1n1", 1);
        fake.serial("nvme1n1", "vol0a1b\n");
        let found = wait(&fake).unwrap();
        assert!(!found.lasting, "it never came");
        fake.later(|fake| {
            fake.link(
                "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b",
                "../../nvme1n1",
            )
        });
        assert!(wait(&fake).unwrap().lasting);
    }

    #[test]
    fn a_device_that_never_comes_is_named_every_way() {
        let fake = Fake::new();
        let error = wait(&fake).unwrap_err();
        let text = error.to_string();
        for part in [
            "Block_Store_vol0a1b",
            "serial vol0a1b",
            "/sdf",
            "/xvdf",
            "attached",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
