//! Notes and examples of `fleet` and its commands.

pub(crate) const FLEET: &str = "\
Masters with the same database (AOT_STORE) and the same key (AOT_FLEET_KEY: a
file, or kms:KEY) are a fleet. These commands take both from the settings, as
serve does, and ask no master.

Examples:
  aot-master fleet init
  aot-master fleet import --from /var/lib/aot
  aot-master fleet rekey --from /etc/aot/fleet.key
  aot-master fleet level";

pub(crate) const FLEET_INIT: &str = "\
Makes the key file if AOT_FLEET_KEY names one that does not exist; copy it to
the host of each master. With kms:KEY there is none: each master asks AWS KMS. A
database that has its keys is left as it is.

Examples:
  AOT_FLEET_KEY=/etc/aot/fleet.key aot-master fleet init";

pub(crate) const FLEET_IMPORT: &str = "\
The keys of the folder become those of the fleet, so that machines need no new
ones: a database that has others is refused. Long files go to AOT_BLOBS. What
was written is read again and compared, and the folder is marked as moved: no
master serves it again. After an interruption, the same command continues.

Examples:
  aot-master fleet import --from /var/lib/aot
  aot-master fleet import --from /var/lib/aot --without-files --json";

pub(crate) const FLEET_REKEY: &str = "\
Masters that run are not disturbed; they need the new AOT_FLEET_KEY at their
next start. The keys stay what they are: whoever has the old key and an old
backup of the database still has them.

Examples:
  AOT_FLEET_KEY=kms:alias/aot aot-master fleet rekey --from /etc/aot/fleet.key
  AOT_FLEET_KEY=/etc/aot/new.key aot-master fleet rekey --from kms:alias/aot";

pub(crate) const FLEET_LEVEL: &str = "\
The last step of an upgrade: from then on, masters of before it take no cluster.
Exits 1 if no master runs.

Examples:
  aot-master fleet level";
