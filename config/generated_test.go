package config

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
)

// A generator makes configs that collide: there are few names, and each says something else
// of them.
type generator struct {
	*rand.Rand
	serial int
}

// often is true two times of three.
func (g *generator) often() bool { return g.IntN(3) > 0 }

// one chooses.
func (g *generator) one(of ...string) string { return of[g.IntN(len(of))] }

// new is a text that there was not before.
func (g *generator) new() string {
	g.serial++
	return fmt.Sprintf("v%d", g.serial)
}

// maybe is nothing, or what make makes.
func maybe[T any](g *generator, make func() T) *T {
	if !g.often() {
		return nil
	}
	v := make()
	return &v
}

// some are entries of the names, in any order, none twice.
func some[T any](g *generator, names []string, make func(name string) T) []T {
	var list []T
	for _, i := range g.Perm(len(names))[:g.IntN(len(names)+1)] {
		list = append(list, make(names[i]))
	}
	return list
}

func (g *generator) number() int { return g.IntN(500) }
func (g *generator) coin() bool  { return g.IntN(2) == 0 }

// words is a list of texts of which some come again in other configs.
func words[T ~string](g *generator) []T {
	return some(g, []string{"one", "two", "three"}, func(n string) T { return T(n) })
}

func (g *generator) resource() types.Resource {
	r := types.Resource{Source: maybe(g, func() string { return "http://files.example/" + g.new() })}
	if r.Source == nil {
		return r
	}
	r.Compression = maybe(g, func() string { return g.one("", "gzip") })
	r.HTTPHeaders = some(g, []string{"A", "B"}, func(n string) types.HTTPHeader {
		return types.HTTPHeader{Name: n, Value: maybe(g, g.new)}
	})
	r.Verification.Hash = maybe(g, func() string { return "sha256-" + rootHash })
	return r
}

// fetched is a resource that has a source.
func (g *generator) fetched() types.Resource {
	for {
		if r := g.resource(); r.Source != nil {
			return r
		}
	}
}

func (g *generator) node(name string) types.Node {
	n := types.Node{Path: "/etc/" + name, Overwrite: maybe(g, g.coin)}
	// A number or a name, in all configs: both are a fault.
	if name[1] == '1' {
		n.User.ID, n.Group.Name = maybe(g, g.number), maybe(g, g.new)
	} else {
		n.User.Name, n.Group.ID = maybe(g, g.new), maybe(g, g.number)
	}
	return n
}

// config makes a config, a valid one without all.
func (g *generator) config(all bool) types.Config {
	names := []string{"a", "b", "c"}
	c := types.Config{Ignition: types.Ignition{Version: newest}}
	c.Ignition.Timeouts = types.Timeouts{HTTPResponseHeaders: maybe(g, g.number), HTTPTotal: maybe(g, g.number)}
	c.Ignition.Proxy = types.Proxy{HTTPProxy: maybe(g, func() string { return "http://" + g.new() + ".example" }), NoProxy: words[types.NoProxyItem](g)}
	c.Ignition.Security.TLS.CertificateAuthorities = some(g, names, func(n string) types.Resource {
		r := g.fetched()
		source := "http://ca.example/" + n
		r.Source = &source
		return r
	})
	// A path is of one kind, in all configs: that two kinds have it is a fault.
	c.Storage.Files = some(g, []string{"f1", "f2", "f3"}, func(n string) types.File {
		f := types.File{Node: g.node(n), FileEmbedded1: types.FileEmbedded1{Contents: g.resource(), Mode: maybe(g, g.number)}}
		if f.Contents.Source == nil {
			f.Overwrite = nil
		}
		for range g.IntN(3) {
			f.Append = append(f.Append, g.fetched())
		}
		return f
	})
	c.Storage.Directories = some(g, []string{"d1", "d2"}, func(n string) types.Directory {
		return types.Directory{Node: g.node(n), DirectoryEmbedded1: types.DirectoryEmbedded1{Mode: maybe(g, g.number)}}
	})
	c.Storage.Links = some(g, []string{"l1", "l2"}, func(n string) types.Link {
		target := g.new()
		return types.Link{Node: g.node(n), LinkEmbedded1: types.LinkEmbedded1{Hard: maybe(g, g.coin), Target: &target}}
	})
	c.Systemd.Units = some(g, []string{"a.service", "b.timer", "c@.service", "c@1.service"}, func(n string) types.Unit {
		return types.Unit{Name: n, Contents: maybe(g, g.unit), Enabled: maybe(g, g.coin), Mask: maybe(g, g.coin),
			Dropins: some(g, []string{"1.conf", "2.conf"}, func(d string) types.Dropin { return types.Dropin{Name: d, Contents: maybe(g, g.unit)} })}
	})
	c.KernelArguments.ShouldExist = words[types.KernelArgument](g)
	// None of a config is in both lists; the other list may be that of another config.
	c.KernelArguments.ShouldNotExist = slices.DeleteFunc(words[types.KernelArgument](g), func(a types.KernelArgument) bool {
		return slices.Contains(c.KernelArguments.ShouldExist, a)
	})
	c.Passwd.Users = some(g, names, func(n string) types.PasswdUser {
		return types.PasswdUser{Name: n, Gecos: maybe(g, g.new), Groups: words[types.Group](g), HomeDir: maybe(g, g.new), NoCreateHome: maybe(g, g.coin),
			PasswordHash: maybe(g, g.new), PrimaryGroup: maybe(g, g.new), SSHAuthorizedKeys: words[types.SSHAuthorizedKey](g), Shell: maybe(g, g.new),
			ShouldExist: maybe(g, g.coin), System: maybe(g, g.coin), UID: maybe(g, g.number)}
	})
	c.Passwd.Groups = some(g, names, func(n string) types.PasswdGroup {
		return types.PasswdGroup{Name: n, Gid: maybe(g, g.number), PasswordHash: maybe(g, g.new), ShouldExist: maybe(g, g.coin)}
	})
	if !all {
		return c
	}
	c.Ignition.Config.Merge = some(g, names, func(n string) types.Resource {
		r := g.fetched()
		source := "http://configs.example/" + n
		r.Source = &source
		return r
	})
	c.Storage.Disks = some(g, []string{"/dev/vda", "/dev/vdb"}, func(n string) types.Disk {
		return types.Disk{Device: n, WipeTable: maybe(g, g.coin), Partitions: some(g, names, func(n string) types.Partition {
			p := types.Partition{Label: &n, SizeMiB: maybe(g, g.number), TypeGUID: maybe(g, g.new), Resize: maybe(g, g.coin)}
			if g.coin() {
				p.Number, p.Label = int(n[0]), maybe(g, g.new)
			}
			return p
		})}
	})
	c.Storage.Raid = some(g, names, func(n string) types.Raid {
		return types.Raid{Name: n, Level: maybe(g, g.new), Devices: words[types.Device](g), Options: words[types.RaidOption](g), Spares: maybe(g, g.number)}
	})
	c.Storage.Luks = some(g, names, func(n string) types.Luks {
		return types.Luks{Name: n, Device: maybe(g, g.new), KeyFile: g.resource(), Options: words[types.LuksOption](g), OpenOptions: words[types.OpenOption](g),
			Clevis: types.Clevis{Tpm2: maybe(g, g.coin), Threshold: maybe(g, g.number), Tang: some(g, names, func(n string) types.Tang {
				return types.Tang{URL: "http://" + n, Thumbprint: maybe(g, g.new), Advertisement: maybe(g, g.new)}
			}), Custom: types.ClevisCustom{Pin: maybe(g, g.new), Config: maybe(g, g.new), NeedsNetwork: maybe(g, g.coin)}}}
	})
	c.Storage.Filesystems = some(g, names, func(n string) types.Filesystem {
		return types.Filesystem{Device: "/dev/" + n, Format: maybe(g, g.new), Label: maybe(g, g.new), MountOptions: words[types.MountOption](g),
			Options: words[types.FilesystemOption](g), Path: maybe(g, g.new), UUID: maybe(g, g.new), WipeFilesystem: maybe(g, g.coin)}
	})
	return c
}

func (g *generator) unit() string {
	return "[Service]\nEnvironment=" + g.new() + "\n[Install]\nWantedBy=a.target\n"
}

// TestMergedAsByTheLibrary: two configs together are what the library makes of them.
func TestMergedAsByTheLibrary(t *testing.T) {
	for seed := range uint64(200) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
		parent, child := g.config(true), g.config(true)
		if seed == 0 {
			parent = types.Config{}
		}
		got, want := Merge(Config{Ignition: parent}, Config{Ignition: child}).Ignition, v3_5.Merge(parent, child)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: got\n%+v\nwant\n%+v", seed, got, want)
		}
	}
}

// A planted tree is a config that pulls in others, by their addresses.
type planted map[string][]byte

// plant makes a config that pulls in others, which pull in others, and gives its document.
func (g *generator) plant(t *testing.T, tree planted, depth int) []byte {
	t.Helper()
	c := g.config(false)
	child := func() types.Resource {
		source := "http://configs.example/" + g.new()
		tree[source] = g.plant(t, tree, depth-1)
		return types.Resource{Source: &source}
	}
	switch {
	case depth == 0:
	case g.IntN(5) == 0:
		c.Ignition.Config.Replace = child()
	default:
		for range g.IntN(4) {
			c.Ignition.Config.Merge = append(c.Ignition.Config.Merge, child())
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// rendered is what Ignition makes of a document and what it pulls in, as its documents say:
// a replacement stands in the place of a config with all that it says, and what is to be
// merged is merged one after the other, each with all that it pulls in itself.
func (tree planted) rendered(t *testing.T, raw []byte) types.Config {
	t.Helper()
	c, found, err := v3_5.ParseCompatibleVersion(raw)
	if err != nil {
		t.Fatalf("%v: %v\n%s", err, found, raw)
	}
	if by := c.Ignition.Config.Replace.Source; by != nil {
		return tree.rendered(t, tree[*by])
	}
	for _, r := range slices.Clone(c.Ignition.Config.Merge) {
		c = v3_5.Merge(c, tree.rendered(t, tree[*r.Source]))
	}
	return c
}

// TestCollectedAsByTheLibrary: a config with all that it pulls in is what the library makes of
// it, one level after the other as in one go.
func TestCollectedAsByTheLibrary(t *testing.T) {
	deepest := 0
	for seed := range uint64(60) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 2))}
		tree := planted{}
		root := g.plant(t, tree, 3)
		fetch := func(_ context.Context, list []resource.Resource) ([][]byte, error) {
			var bodies [][]byte
			for _, r := range list {
				bodies = append(bodies, tree[r.Source.Reveal()])
			}
			return bodies, nil
		}
		got, err := Collect(t.Context(), []Document{{Name: UserDocument, Bytes: root}}, fetch, nil, Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want := tree.rendered(t, root)
		want.Ignition.Config = types.IgnitionConfig{}
		if !reflect.DeepEqual(got.Config.Ignition, want) {
			t.Fatalf("seed %d: got\n%+v\nwant\n%+v", seed, got.Config.Ignition, want)
		}
		deepest = max(deepest, len(got.Documents))
	}
	if deepest < 10 {
		t.Errorf("no config consists of more than %d documents", deepest)
	}
}
