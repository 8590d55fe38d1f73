package image

// This file is the whole of what an initrd has apart from pilotlight's own: what systemd 257 or newer wants to run as
// PID 1, to find disks, to mount, to reach a network and to hand over. A kind of step names its own programs,
// libraries and modules in Contents, also where they are listed here already.

// presence says what it means that a tree lacks something.
type presence int

const (
	must presence = iota // the tree cannot make an initrd
	may                  // newer, older, or smaller than others: then it goes without
)

// item is one thing that is copied from the tree.
type item struct {
	name     string
	presence presence
	why      string
}

// basePrograms are found as Contents.Programs are. A link is copied with what it leads to: fsck.ext4 brings e2fsck.
var basePrograms = []item{
	{"/usr/lib/systemd/systemd", must, "PID 1"},
	{"/usr/lib/systemd/systemd-executor", must, "PID 1 starts every service through it"},
	{"/usr/lib/systemd/systemd-shutdown", must, "PID 1 becomes it for poweroff and reboot"},
	{"systemctl", must, "isolates initrd-switch-root.target, switches root"},
	{"/usr/lib/systemd/systemd-journald", must, ""},
	{"journalctl", must, "the last words on the console of a failed boot"},

	{"udevadm", must, "also systemd-udevd, by its other name"},
	{"/usr/lib/systemd/systemd-udevd", must, ""},
	{"/usr/lib/udev/ata_id", may, "by-id links of SATA disks"},
	{"/usr/lib/udev/scsi_id", may, "by-id links of SCSI disks"},
	{"/usr/lib/udev/cdrom_id", may, "labels of config drives that are CD-ROMs"},
	{"dmsetup", must, "IMPORTed by 55-dm.rules: without it device mapper names are not in udev's database"},
	{"/usr/sbin/modprobe", must, "modprobe@.service"},
	{"kmod", must, "kmod-static-nodes.service, which gives /dev/mapper/control and /dev/loop-control"},
	{"/usr/lib/systemd/systemd-modules-load", must, "rd.modules_load="},
	{"/usr/lib/systemd/systemd-sysctl", must, "99-systemd.rules runs it for each network link"},

	{"mount", must, "every .mount unit"},
	{"umount", must, "every .mount unit, to stop it"},
	{"/usr/lib/systemd/systemd-fsck", must, "systemd-fsck@.service and systemd-fsck-root.service"},
	{"fsck", must, "run by systemd-fsck"},
	{"fsck.ext4", must, ""},
	{"fsck.vfat", may, "x-initrd.mount of an ESP"},
	{"mkfs.ext4", must, "systemd-repart, and systemd-makefs"},
	{"mkfs.vfat", may, "systemd-repart, for an ESP"},
	{"/usr/lib/systemd/systemd-makefs", must, "x-systemd.makefs"},
	{"/usr/lib/systemd/systemd-growfs", must, "x-systemd.growfs, and GrowFileSystem= of repart.d"},
	{"systemd-repart", must, ""},
	{"/usr/lib/systemd/systemd-sysroot-fstab-check", must, "initrd-parse-etc.service: /sysroot/etc/fstab"},
	{"/usr/lib/systemd/systemd-volatile-root", must, "systemd.volatile="},
	{"/usr/lib/systemd/systemd-veritysetup", must, "roothash=, usrhash=, veritytab"},
	{"systemd-cryptsetup", may, "crypttab with x-initrd.attach"},
	{"/usr/lib/systemd/systemd-cryptsetup", may, "its path before 256, by which units may call it"},
	{"systemd-cryptenroll", may, "binds volumes of storage.luks to the TPM"},
	{"wipefs", may, "wipeVolume of storage.luks"},
	{"systemd-ask-password", may, "a passphrase on the console"},
	{"systemd-tty-ask-password-agent", may, "a passphrase on the console"},
	{"/usr/lib/systemd/systemd-validatefs", may, "since 258: what repart wrote of a file system's purpose is checked"},

	{"/usr/lib/systemd/systemd-networkd", must, ""},
	{"/usr/lib/systemd/systemd-networkd-wait-online", must, ""},
	{"/usr/lib/systemd/systemd-network-generator", must, "ip= and its like"},

	{"/usr/lib/systemd/systemd-pcrextend", must, "phases, and measuring through its socket"},
	{"/usr/lib/systemd/systemd-tpm2-setup", must, "the storage root key, which sealing needs"},
	{"systemd-creds", must, "opens sealed credentials"},

	{"systemd-tmpfiles", must, "/run and /dev in the initrd, and /sysroot"},
	{"systemd-sysusers", must, "/sysroot"},
	{"sulogin", must, "run by systemd-sulogin-shell; root is locked, so it only waits"},
	{"/usr/lib/systemd/systemd-sulogin-shell", must, "emergency.service"},
}

// baseGenerators lie in /usr/lib/systemd/system-generators.
var baseGenerators = []item{
	{"systemd-fstab-generator", must, "root=, mount.usr=, /sysroot/etc/fstab"},
	{"systemd-gpt-auto-generator", must, "root=gpt-auto, and the default under a UKI"},
	{"systemd-veritysetup-generator", must, "roothash=, usrhash="},
	{"systemd-cryptsetup-generator", may, "rd.luks."},
	{"systemd-debug-generator", must, "rd.systemd.mask=, rd.systemd.wants=, rd.systemd.break="},
	{"systemd-run-generator", must, "rd.systemd.run="},
	{"systemd-tpm2-generator", must, "orders tpm2.target after the TPM's device, where firmware reports one"},
	{"systemd-factory-reset-generator", may, "since 258"},
}

// baseUnits lie in /usr/lib/systemd/system. Drop-ins come with them, and links between them in .wants and .requires
// directories. Units of the running system are left out where they would only be skipped.
var baseUnits = []item{
	// The skeleton: bootup(7), "Bootup in the initrd".
	{"sysinit.target", must, ""},
	{"basic.target", must, ""},
	{"sockets.target", must, ""},
	{"timers.target", must, ""},
	{"paths.target", must, ""},
	{"slices.target", must, ""},
	{"local-fs-pre.target", must, ""},
	{"local-fs.target", must, ""},
	{"swap.target", must, ""},
	{"remote-fs-pre.target", must, "ordered after by mounts with _netdev"},
	{"remote-fs.target", must, "the same"},
	{"initrd.target", must, "the default target"},
	{"initrd-root-device.target", must, ""},
	{"initrd-root-fs.target", must, ""},
	{"initrd-usr-fs.target", must, ""},
	{"initrd-fs.target", must, ""},
	{"initrd-parse-etc.service", must, ""},
	{"initrd-cleanup.service", must, ""},
	{"initrd-udevadm-cleanup-db.service", must, ""},
	{"initrd-switch-root.target", must, ""},
	{"initrd-switch-root.service", must, ""},
	{"blockdev@.target", must, "generated mounts and verity devices meet here"},
	{"first-boot-complete.target", must, "ordered by units of first boot"},
	{"factory-reset-now.target", may, "since 258"},

	// The way out.
	{"emergency.target", must, ""},
	{"emergency.service", must, ""},
	{"rescue.target", must, "rd.rescue"},
	{"rescue.service", must, ""},
	{"shutdown.target", must, ""},
	{"umount.target", must, ""},
	{"final.target", must, ""},
	{"poweroff.target", must, ""},
	{"systemd-poweroff.service", must, ""},
	{"reboot.target", must, ""},
	{"systemd-reboot.service", must, ""},
	{"halt.target", must, ""},
	{"systemd-halt.service", must, ""},
	{"kexec.target", must, ""},
	{"systemd-kexec.service", must, ""},
	{"ctrl-alt-del.target", must, "a link to reboot.target"},

	// The journal, devices, /run.
	{"systemd-journald.service", must, ""},
	{"systemd-journald.socket", must, ""},
	{"systemd-journald-dev-log.socket", must, ""},
	{"systemd-udevd.service", must, ""},
	{"systemd-udevd-control.socket", must, ""},
	{"systemd-udevd-kernel.socket", must, ""},
	{"systemd-udevd-varlink.socket", may, "since 258"},
	{"systemd-udev-trigger.service", must, ""},
	{"systemd-udev-settle.service", may, "nothing here waits for it; others may"},
	{"systemd-udev-load-credentials.service", may, "udev.rules.* credentials"},
	{"kmod-static-nodes.service", must, ""},
	{"modprobe@.service", must, ""},
	{"systemd-modules-load.service", must, ""},
	{"systemd-tmpfiles-setup-dev-early.service", must, ""},
	{"systemd-tmpfiles-setup-dev.service", must, ""},
	{"systemd-tmpfiles-setup.service", must, "also copies what a UKI brought in /.extra"},

	// Disks.
	{"systemd-fsck@.service", must, ""},
	{"systemd-fsck-root.service", must, ""},
	{"systemd-growfs@.service", must, ""},
	{"systemd-growfs-root.service", must, ""},
	{"systemd-volatile-root.service", must, ""},
	{"systemd-validatefs@.service", may, "since 258"},
	{"systemd-repart.service", must, "runs where the image has its own repart.d and pilotlight owns no disk"},
	{"veritysetup-pre.target", must, ""},
	{"veritysetup.target", must, ""},
	{"remote-veritysetup.target", must, ""},
	{`system-systemd\x2dveritysetup.slice`, must, ""},
	{"cryptsetup-pre.target", may, ""},
	{"cryptsetup.target", may, ""},
	{"remote-cryptsetup.target", may, ""},
	{`system-systemd\x2dcryptsetup.slice`, may, ""},
	{"systemd-ask-password-console.path", may, "a passphrase on the console"},
	{"systemd-ask-password-console.service", may, ""},

	// The TPM.
	{"tpm2.target", must, ""},
	{"systemd-tpm2-setup-early.service", must, ""},
	{"systemd-pcrphase-initrd.service", must, ""},
	{"systemd-pcrextend.socket", must, ""},
	{"systemd-pcrextend@.service", must, ""},
	{"systemd-pcrosseparator.service", may, "since 261"},
	{"systemd-pcrnvdone.service", may, "since 261"},

	// The network. Nothing here pulls it in: pilotlight starts its pilotlight-network.service, others network-online.target.
	{"network-pre.target", must, ""},
	{"network.target", must, ""},
	{"network-online.target", must, ""},
	{"nss-lookup.target", must, ""},
	{"systemd-networkd.service", must, ""},
	{"systemd-networkd.socket", must, ""},
	{"systemd-networkd-varlink.socket", may, "since 258"},
	{"systemd-networkd-wait-online.service", must, ""},
	{"systemd-network-generator.service", must, ""},
}

// baseEnabled are links below /usr/lib/systemd/system that `systemctl enable` would make in a running system.
var baseEnabled = []Link{
	{"network-online.target.wants/systemd-networkd-wait-online.service", "../systemd-networkd-wait-online.service"},
	{"sysinit.target.wants/systemd-network-generator.service", "../systemd-network-generator.service"},
	{"sysinit.target.wants/systemd-udev-load-credentials.service", "../systemd-udev-load-credentials.service"},
}

// relied are the base's units that pilotlight's own name and would silently do without, and those that carry it. They
// are what Check looks for, with what is below.
var relied = []string{
	"initrd.target", "initrd-root-device.target", "initrd-root-fs.target", "initrd-usr-fs.target", "initrd-fs.target",
	"initrd-parse-etc.service", "initrd-cleanup.service", "initrd-switch-root.target", "initrd-switch-root.service",
	"emergency.target", "emergency.service", "modprobe@.service", "blockdev@.target", "systemd-udevd.service",
	"network-pre.target", "network.target", "systemd-networkd.service", "systemd-networkd.socket",
	"tpm2.target", "systemd-tpm2-setup-early.service", "systemd-pcrextend.socket", "systemd-pcrextend@.service",
}

// reliedPrograms are those that no kind of step names: a config decides which file systems are made.
var reliedPrograms = []item{
	{name: "mkfs.ext4", why: "systemd-repart"},
	{name: "fsck.ext4", why: "systemd-fsck"},
	{name: "/usr/lib/systemd/systemd-networkd-wait-online", why: "pilotlight-network.service"},
}

// reliedFile is a file that one of several names may have: upstream's, or Debian's.
type reliedFile struct {
	names []string
	why   string
}

// reliedFiles are those without which devices have no names, or without which whoever makes one waits for ever.
var reliedFiles = []reliedFile{
	{[]string{"usr/lib/udev/rules.d/50-udev-default.rules"}, ""},
	{[]string{"usr/lib/udev/rules.d/55-dm.rules", "usr/lib/udev/rules.d/10-dm.rules"}, "names of device mapper devices"},
	{[]string{"usr/lib/udev/rules.d/60-persistent-storage.rules"}, "/dev/disk/by-*"},
	{[]string{"usr/lib/udev/rules.d/80-drivers.rules"}, "loads modules"},
	{[]string{"usr/lib/udev/rules.d/95-dm-notify.rules"}, "libdevmapper waits for it"},
	{[]string{"usr/lib/udev/rules.d/99-systemd.rules"}, "devices become units"},
	{[]string{"etc/mke2fs.conf"}, "else mkfs.ext4 makes ext2, without a journal"},
}

// baseRules lie in /usr/lib/udev/rules.d. 60-tpm-udev.rules is left out: it gives the TPM to the user tss, whom
// nothing here runs as.
var baseRules = []item{
	{"50-udev-default.rules", must, ""},
	{"55-dm.rules", must, "names of device mapper devices"},
	{"60-block.rules", must, "watches disks that are written to, so that links follow a new partition table"},
	{"60-cdrom_id.rules", may, "config drives"},
	{"60-dmi-id.rules", may, "what platform this is, for systemd's own"},
	{"60-persistent-storage.rules", must, "/dev/disk/by-*"},
	{"60-persistent-storage-dm.rules", must, "the same, of device mapper devices"},
	{"60-persistent-storage-mtd.rules", may, ""},
	{"63-md-raid-arrays.rules", may, "links of RAID arrays"},
	{"64-btrfs.rules", may, "waits for all disks of a file system"},
	{"75-net-description.rules", must, "properties that .network files match"},
	{"80-drivers.rules", must, "loads modules"},
	{"80-net-setup-link.rules", must, "names of network links"},
	{"81-net-dhcp.rules", may, ""},
	{"90-image-dissect.rules", may, "since 258: root=dissect"},
	{"95-dm-notify.rules", must, "libdevmapper waits for it"},
	{"99-systemd.rules", must, "devices become units"},
}

// baseTmpfiles lie in /usr/lib/tmpfiles.d.
var baseTmpfiles = []item{
	{"20-systemd-stub.conf", may, "PCR signatures and keys that a UKI brought"},
	{"credstore.conf", may, "/run/credstore"},
	{"static-nodes-permissions.conf", may, "/dev nodes of modules not yet loaded"},
	{"systemd.conf", must, ""},
	{"systemd-network.conf", must, "/run/systemd/netif"},
}

// baseFiles are whole paths.
var baseFiles = []item{
	{"/usr/lib/systemd/network/99-default.link", must, "names of network links"},
	{"/usr/lib/modprobe.d/systemd.conf", may, "no bond0 and dummy0 by merely loading the module"},
	{"/etc/mke2fs.conf", may, "else mkfs.ext4 makes ext2, without a journal"},
}

// baseLibraries are opened at run time. Those without which a program of the base merely does less are not here.
var baseLibraries = []item{
	{"libkmod.so.2", must, "udev loads modules"},
	{"libblkid.so.1", must, "udev knows file systems"},
	{"libmount.so.1", must, "PID 1 sees mounts"},
	{"libfdisk.so.1", must, "systemd-repart"},
	{"libcryptsetup.so.12", must, "verity, LUKS"},
	{"cryptsetup/libcryptsetup-token-systemd-tpm2.so", may, "LUKS volumes that are sealed to the TPM: without it a passphrase is asked for"},
	{"libtss2-esys.so.0", may, "the TPM"},
	{"libtss2-rc.so.0", may, "the TPM"},
	{"libtss2-mu.so.0", may, "the TPM"},
	{"libtss2-tcti-device.so.0", may, "the TPM"},
	{"libzstd.so.1", may, "journal files that zstd packed"},
	{"libacl.so.1", may, "access control lists of tmpfiles.d; linked with before 262"},
	{"libgcc_s.so.1", may, "pthread_cancel(3), which libcryptsetup's threads end by"},
	{codepage, may, "iconv of the character set of FAT labels, without which mkfs.vfat and fsck.vfat complain"},
}

// codepage is a library of iconv, which finds it by a list beside it; the tree's list names a hundred more.
const (
	codepage     = "gconv/IBM850.so"
	gconvModules = "alias CP850// IBM850//\nalias 850// IBM850//\nmodule IBM850// INTERNAL IBM850 1\nmodule INTERNAL IBM850// IBM850 1\n"
)

// baseModules go in where the kernel has them as files; one that is built in needs none, and one that a distribution
// does not build is for machines that it does not run on.
var baseModules = []string{
	// Disks, and what they hang on.
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "ahci", "ata_piix", "nvme",
	"hv_vmbus", "hv_storvsc", "xen_blkfront", "vmw_pvscsi", "mptspi", "mmc_block", "sdhci_pci", "sdhci_acpi",
	"usb_storage", "uas", "xhci_pci", "ehci_pci",
	"megaraid_sas", "mpt3sas", "smartpqi", "hpsa",

	// Networks.
	"virtio_net", "hv_netvsc", "xen_netfront", "vmxnet3", "ena", "gve", "ixgbevf", "iavf", "e1000", "e1000e", "igb",
	"igc", "ixgbe", "i40e", "ice", "tg3", "bnxt_en", "r8169",
	"af_packet", // networkd's DHCP
	// mlx4_en and mlx5_core are a tenth of the whole: in a cloud they only speed up a link that another driver has
	// already. Who needs them asks for them.

	// Device mapper, loop devices.
	"dm_mod", "dm_verity", "dm_crypt", "loop",
	// Ciphers and hashes that these two ask for by name once a volume is opened, and what makes them fast.
	"xts", "cbc", "essiv", "sha256_generic", "sha512_generic", "aes_generic", "algif_skcipher", "algif_hash",
	"aesni_intel", "sha256_ssse3", "aes_ce_blk", "aes_arm64", "sha2_ce", "sha256_arm64",

	// File systems. vfat needs a character set on each mount: cp437 and ascii are the kernel's defaults, utf8 is
	// asked for by systemd's ESP mounts.
	"ext4", "erofs", "squashfs", "overlay", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "isofs", "udf",
	"autofs4", "efivarfs",

	// Where configs and secrets come from.
	"qemu_fw_cfg", "tpm_tis", "tpm_crb", "dmi_sysfs", "vmw_vsock_virtio_transport",
}

// baseDirs are there before any unit runs. /dev, /proc, /sys and /run are mounted over.
var baseDirs = []string{"dev", "proc", "sys", "run", "sysroot", "var", "var/tmp", "tmp", "root"}

// baseLinks make the layout of a merged /usr where the tree's own links have not.
var baseLinks = []Link{
	{"/bin", "usr/bin"},
	{"/sbin", "usr/sbin"},
	{"/lib", "usr/lib"},
	{"/lib64", "usr/lib64"},
	{"/init", "usr/lib/systemd/systemd"},
	{"/etc/os-release", "initrd-release"},
	{"/usr/lib/os-release", "../../etc/initrd-release"},
	{"/var/run", "/run"},
}

// nsswitch keeps the C library from asking services that are not here. It is the built-in default of today's glibc.
const nsswitch = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
