// Verifies a log that the project wrote with Go's own packages for notes and transparency logs, and cosignatures with
// an implementation of C2SP tlog-cosignature written for this check alone. Reads one JSON document from standard input,
// prints one. Run by tests/ledger/test_go.py; needs GO111MODULE=off and GOPATH=/usr/share/gocode (Debian's
// golang-golang-x-mod-dev).
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type inclusion struct {
	Index  int64
	Size   int64
	Root   []byte
	Leaf   []byte
	Hashes [][]byte
}

type consistency struct {
	Old, New         int64
	OldRoot, NewRoot []byte
	Hashes           [][]byte
}

type task struct {
	Folder      string
	LogKey      string
	WitnessKeys []string
	Inclusion   []inclusion
	Consistency []consistency
	// To be signed here: a note by a key in Go's format, and a cosignature at a time by a seed.
	SignText  string
	SignKey   string
	Seed      []byte
	CosignerN string
	Time      uint64
}

type result struct {
	Size         int64
	Entries      int
	Signed       []string
	Unverified   []string
	Times        map[string]uint64
	ProofsMade   [][][]byte
	SignedNote   string
	CosignedNote string
}

func main() {
	var t task
	check(json.NewDecoder(os.Stdin).Decode(&t))
	r := result{Times: map[string]uint64{}}
	if t.SignKey != "" {
		signer, err := note.NewSigner(t.SignKey)
		check(err)
		signed, err := note.Sign(&note.Note{Text: t.SignText}, signer)
		check(err)
		r.SignedNote = string(signed)
	}
	if len(t.Seed) > 0 {
		cosigned, err := note.Sign(&note.Note{Text: t.SignText}, &cosigner{t.CosignerN, t.Seed, t.Time})
		check(err)
		r.CosignedNote = string(cosigned)
	}
	if t.Folder != "" {
		verifyLog(&t, &r)
	}
	check(json.NewEncoder(os.Stdout).Encode(r))
}

func verifyLog(t *task, r *result) {
	data, err := os.ReadFile(filepath.Join(t.Folder, "checkpoint"))
	check(err)

	// Go's own verifiers know nothing of cosignatures: they must be left over, not refused.
	logKey, err := note.NewVerifier(t.LogKey)
	check(err)
	opened, err := note.Open(data, note.VerifierList(logKey))
	check(err)
	for _, s := range opened.Sigs {
		r.Signed = append(r.Signed, s.Name)
	}
	for _, s := range opened.UnverifiedSigs {
		r.Unverified = append(r.Unverified, s.Name)
	}

	// With verifiers for them, every one of them must hold.
	known := []note.Verifier{logKey}
	for _, vkey := range t.WitnessKeys {
		w, err := newWitness(vkey)
		check(err)
		known = append(known, w)
	}
	opened, err = note.Open(data, note.VerifierList(known...))
	check(err)
	if len(opened.Sigs) != len(known) {
		fail(fmt.Errorf("%d of %d signatures verified", len(opened.Sigs), len(known)))
	}
	for _, s := range opened.Sigs[1:] {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		check(err)
		r.Times[s.Name] = binary.BigEndian.Uint64(raw[4:12])
	}

	lines := strings.SplitN(opened.Text, "\n", 4)
	if lines[0] != logKey.Name() {
		fail(errors.New("the origin is not the key's name"))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	rootBytes, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	var root tlog.Hash
	copy(root[:], rootBytes)
	tree := tlog.Tree{N: size, Hash: root}
	r.Size = size

	// Every hash that this reader gives was checked against the root, through the tiles.
	reader := tlog.TileHashReader(tree, &folder{t.Folder})
	r.Entries = checkEntries(t.Folder, size, reader)

	for _, p := range t.Inclusion {
		check(tlog.CheckRecord(hashes(p.Hashes), p.Size, hash(p.Root), p.Index, hash(p.Leaf)))
		if p.Size == size {
			made, err := tlog.ProveRecord(size, p.Index, reader)
			check(err)
			r.ProofsMade = append(r.ProofsMade, raw(made))
		}
	}
	for _, p := range t.Consistency {
		check(tlog.CheckTree(hashes(p.Hashes), p.New, hash(p.NewRoot), p.Old, hash(p.OldRoot)))
		if p.New == size {
			made, err := tlog.ProveTree(size, p.Old, reader)
			check(err)
			r.ProofsMade = append(r.ProofsMade, raw(made))
		}
	}
}

// checkEntries reads every entry bundle and compares the record hashes with those in the verified tiles.
func checkEntries(root string, size int64, reader tlog.HashReader) int {
	count := 0
	for first := int64(0); first < size; first += 256 {
		width := int64(256)
		if size-first < width {
			width = size - first
		}
		tile := tlog.Tile{H: 8, L: 0, N: first / 256, W: int(width)}
		path := strings.Replace(c2spPath(tile), "tile/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(root, path))
		check(err)
		var indexes []int64
		var found []tlog.Hash
		for i := int64(0); i < width; i++ {
			length := int(binary.BigEndian.Uint16(data))
			found = append(found, tlog.RecordHash(data[2:2+length]))
			indexes = append(indexes, tlog.StoredHashIndex(0, first+i))
			data = data[2+length:]
		}
		if len(data) != 0 {
			fail(fmt.Errorf("%s goes on after its entries", path))
		}
		wanted, err := reader.ReadHashes(indexes)
		check(err)
		for i := range wanted {
			if wanted[i] != found[i] {
				fail(fmt.Errorf("entry %d does not hash to its leaf", first+int64(i)))
			}
		}
		count += len(wanted)
	}
	return count
}

// folder reads tiles of height 8 from plain files with the paths of C2SP tlog-tiles.
type folder struct{ root string }

func (f *folder) Height() int                         { return 8 }
func (f *folder) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(f.root, c2spPath(t)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// c2spPath: Go writes tile/<height>/<level>/..., the format leaves the height out.
func c2spPath(t tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
}

// witness is a note.Verifier for type 04.
type witness struct {
	name string
	key  ed25519.PublicKey
}

func newWitness(vkey string) (*witness, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed vkey")
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) != 33 || data[0] != 4 {
		return nil, errors.New("no key of type 04")
	}
	w := &witness{parts[0], data[1:]}
	if fmt.Sprintf("%08x", w.KeyHash()) != parts[1] {
		return nil, errors.New("wrong key ID")
	}
	return w, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return keyHash(w.name, w.key) }
func (w *witness) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	return ed25519.Verify(w.key, message(binary.BigEndian.Uint64(sig), msg), sig[8:])
}

// cosigner is a note.Signer for type 04 at one time.
type cosigner struct {
	name string
	seed []byte
	time uint64
}

func (c *cosigner) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(c.seed) }
func (c *cosigner) Name() string            { return c.name }
func (c *cosigner) KeyHash() uint32         { return keyHash(c.name, c.key().Public().(ed25519.PublicKey)) }
func (c *cosigner) Sign(msg []byte) ([]byte, error) {
	sig := make([]byte, 8)
	binary.BigEndian.PutUint64(sig, c.time)
	return append(sig, ed25519.Sign(c.key(), message(c.time, msg))...), nil
}

func keyHash(name string, key ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte(name + "\n"), {4}, key}, nil))
	return binary.BigEndian.Uint32(sum[:])
}

func message(time uint64, text []byte) []byte {
	return append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", time)), text...)
}

func hash(data []byte) (h tlog.Hash) {
	if len(data) != len(h) {
		fail(fmt.Errorf("a hash has %d bytes", len(data)))
	}
	copy(h[:], data)
	return h
}

func hashes(all [][]byte) (found []tlog.Hash) {
	for _, data := range all {
		found = append(found, hash(data))
	}
	return found
}

func raw(all []tlog.Hash) [][]byte {
	found := [][]byte{}
	for i := range all {
		found = append(found, all[i][:])
	}
	return found
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
