package config

import (
	"strings"

	"github.com/coreos/ignition/v2/config/shared/errors"
)

// ignitionMessage says what the library's finding may be told as. Its fixed
// messages are told as they are, some with a hint. Of others the library has
// composed the text, and might have put a value into it: they do so with a line
// of a unit that cannot be parsed.
func ignitionMessage(message string) (public, hint string) {
	switch {
	case strings.HasPrefix(message, "invalid unit content: "):
		return "is not a unit that systemd could parse", "sections in brackets, and lines of the form Key=value"
	case strings.HasPrefix(message, "unit ") && strings.HasSuffix(message, " is enabled, but has no install section so enable does nothing"):
		return "the unit is enabled and has no [Install] section, so that enabling it does nothing", "add [Install] with WantedBy= to its contents"
	case strings.HasPrefix(message, "template unit ") && strings.HasSuffix(message, " doesn't have Install section"):
		return "an instance of this template is enabled, and the template has no [Install] section", "add [Install] with WantedBy= to its contents"
	}
	for _, fixed := range []struct {
		err  error
		hint string
	}{
		{errors.ErrDuplicate, "each entry of a list has a name, path or source of its own"},
		{errors.ErrCompressionInvalid, `"gzip" or nothing; zstd only within pilotlight`},
		{errors.ErrFileUsedSymlink, "name the path that the link leads to"},
		{errors.ErrDirectoryUsedSymlink, "name the path that the link leads to"},
		{errors.ErrLinkUsedSymlink, "name the path that the link leads to"},
		{errors.ErrLinkTargetRequired, `add "target"`},
		{errors.ErrHardLinkToDirectory, "only a symbolic link can lead to a directory"},
		{errors.ErrHardLinkSpecifiesOwner, "owner and group are those of the target"},
		{errors.ErrDiskDeviceRequired, ""},
		{errors.ErrPartitionNumbersCollide, ""},
		{errors.ErrPartitionsOverlap, ""},
		{errors.ErrPartitionsMisaligned, ""},
		{errors.ErrOverwriteAndNilSource, `add "contents"`},
		{errors.ErrVerificationAndNilSource, `add "source"`},
		{errors.ErrFilesystemInvalidFormat, ""},
		{errors.ErrLabelNeedsFormat, ""},
		{errors.ErrFormatNilWithOthers, ""},
		{errors.ErrExt4LabelTooLong, ""},
		{errors.ErrBtrfsLabelTooLong, ""},
		{errors.ErrXfsLabelTooLong, ""},
		{errors.ErrSwapLabelTooLong, ""},
		{errors.ErrVfatLabelTooLong, ""},
		{errors.ErrLuksLabelTooLong, ""},
		{errors.ErrLuksNameContainsSlash, ""},
		{errors.ErrInvalidLuksKeyFile, ""},
		{errors.ErrClevisPinRequired, ""},
		{errors.ErrUnknownClevisPin, ""},
		{errors.ErrClevisConfigRequired, ""},
		{errors.ErrClevisCustomWithOthers, ""},
		{errors.ErrTangThumbprintRequired, ""},
		{errors.ErrInvalidTangAdvertisement, ""},
		{errors.ErrFileIllegalMode, "modes are decimal numbers: 0644 is 420, 0755 is 493"},
		{errors.ErrModeSpecialBits, ""},
		{errors.ErrBothIDAndNameSet, "take one of them out"},
		{errors.ErrLabelTooLong, ""},
		{errors.ErrDoesntMatchGUIDRegex, ""},
		{errors.ErrLabelContainsColon, ""},
		{errors.ErrNoPath, ""},
		{errors.ErrPathRelative, "it begins with /"},
		{errors.ErrDirtyPath, "without //, /./, /../ and a / at the end"},
		{errors.ErrPartitionsOverwritten, ""},
		{errors.ErrFilesystemImplicitWipe, ""},
		{errors.ErrRaidLevelRequired, ""},
		{errors.ErrSparesUnsupportedForLevel, ""},
		{errors.ErrUnrecognizedRaidLevel, ""},
		{errors.ErrRaidDevicesRequired, ""},
		{errors.ErrShouldNotExistWithOthers, ""},
		{errors.ErrZeroesWithShouldNotExist, ""},
		{errors.ErrNeedLabelOrNumber, ""},
		{errors.ErrDuplicateLabels, ""},
		{errors.ErrInvalidProxy, "a proxy is the URL of a server, as in http://proxy.example:3128"},
		{errors.ErrInsecureProxy, "the proxy sees which servers are asked"},
		{errors.ErrPathConflictsSystemd, "systemd.units writes this path too"},
		{errors.ErrCexWithClevis, ""},
		{errors.ErrCexWithKeyFile, ""},
		{errors.ErrInvalidSystemdExt, "as in .service, .socket, .mount, .target, .timer"},
		{errors.ErrInvalidSystemdDropinExt, "drop-ins end in .conf"},
		{errors.ErrSourceRequired, `add "source"`},
		{errors.ErrInvalidScheme, "http, https, tftp, s3 and data; gs from spec 3.2.0 on, arn from 3.4.0 on"},
		{errors.ErrInvalidUrl, ""},
		{errors.ErrInvalidHTTPHeader, "leave the value out to take a parent's header away"},
		{errors.ErrEmptyHTTPHeaderName, ""},
		{errors.ErrUnsupportedSchemeForHTTPHeaders, "only http and https have headers"},
		{errors.ErrHashMalformed, "sha256- or sha512- and the sum in hexadecimal"},
		{errors.ErrHashWrongSize, "64 digits for sha256, 128 for sha512"},
		{errors.ErrHashUnrecognized, "sha256 or sha512"},
		{errors.ErrInvalidS3ARN, ""},
		{errors.ErrInvalidS3ObjectVersionId, ""},
	} {
		if message == fixed.err.Error() {
			return message, fixed.hint
		}
	}
	return "is not valid by Ignition's spec", ""
}
