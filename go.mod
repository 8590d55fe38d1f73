module pilotlight

go 1.26.0

require (
	// The metadata service of Google's cloud: its paths, its header, what it means by "not defined".
	cloud.google.com/go/compute/metadata v0.10.0
	// The words in which the next one takes its options.
	github.com/aws/aws-sdk-go-v2 v1.47.8
	// The metadata service of EC2, with the handling of its tokens (IMDSv2).
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.20.8
	// Ignition's config types, parser, translation and validation: a config means what it means there.
	github.com/coreos/ignition/v2 v2.24.0
	// The report type that Ignition's parser returns; nothing else of it is used.
	github.com/coreos/vcontext v0.0.0-20230201181013-d72178a18687
	// PCR reads and extends on /dev/tpmrm0, in every bank, without cgo.
	github.com/google/go-tpm v0.9.8
	// zstd, for compression: "zstd" in our section and for the initrd's archive; the standard library has none.
	github.com/klauspost/compress v1.20.3
	// Scripts that run the program from outside (tests/script).
	github.com/rogpeppe/go-internal v1.16.0
	// cpio archives, shared libraries of a program, module dependencies.
	github.com/u-root/u-root v0.16.0
	// xz: Debian's kernel modules, and initrds in it. The standard library has none.
	github.com/ulikunitz/xz v0.5.15
	// data: URLs, decoded as Ignition decodes them: the judge of our own decoder.
	github.com/vincent-petithory/dataurl v1.0.0
	// System calls that the standard library lacks: openat2, mount, ioctl.
	golang.org/x/sys v0.49.0
)

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/aws/smithy-go v1.28.8 // indirect
	github.com/coreos/go-json v0.0.0-20230131223807-18775e0fb4fb // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.6.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/pierrec/lz4/v4 v4.1.22 // indirect
	github.com/u-root/uio v0.0.0-20240224005618-d2acac8f3701 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	honnef.co/go/tools v0.8.2 // indirect
)

tool honnef.co/go/tools/cmd/staticcheck
