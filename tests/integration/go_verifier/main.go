// Command verifier checks logs with Go's own sumdb packages. It reads one JSON request per line and answers each
// with one line: {"ok": …, "error": …, "text": …}.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"crypto/ed25519"
	"crypto/sha256"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type request struct {
	Op      string
	Note    string
	Vkey    string
	Witness string
	Skey    string
	Text    string
	Bundle  string
	Folder  string
	Leaf    []byte
	Path    [][]byte
	Root    []byte
	OldRoot []byte
	Index   int64
	Size    int64
	OldSize int64
}

type answer struct {
	OK    bool     `json:"ok"`
	Error string   `json:"error,omitempty"`
	Text  string   `json:"text,omitempty"`
	Vkey  string   `json:"vkey,omitempty"`
	Skey  string   `json:"skey,omitempty"`
	Path  [][]byte `json:"path,omitempty"`
}

func main() {
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		var a answer
		if err := json.Unmarshal(line, &r); err != nil {
			a.Error = err.Error()
		} else if err := handle(r, &a); err != nil {
			a.Error = err.Error()
		} else {
			a.OK = true
		}
		if err := out.Encode(a); err != nil {
			return
		}
	}
}

func handle(r request, a *answer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	switch r.Op {
	case "open":
		n, err := open(r.Note, r.Vkey)
		if err == nil {
			a.Text = n.Text
		}
		return err
	case "sign":
		return sign(r, a)
	case "cosignature":
		return cosignature(r.Note, r.Vkey, r.Witness)
	case "inclusion":
		return tlog.CheckRecord(hashes(r.Path), r.Size, hash(r.Root), r.Index, tlog.RecordHash(r.Leaf))
	case "consistency":
		return tlog.CheckTree(tlog.TreeProof(hashes(r.Path)), r.Size, hash(r.Root), r.OldSize, hash(r.OldRoot))
	case "bundle":
		return bundle(r.Bundle, r.Vkey, a)
	case "folder":
		return folder(r.Folder, r.Vkey, a)
	case "prove":
		return prove(r, a)
	}
	return errors.New("unknown op")
}

func open(msg, vkey string) (*note.Note, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return note.Open([]byte(msg), note.VerifierList(v))
}

func sign(r request, a *answer) error {
	skey, vkey := r.Skey, ""
	if skey == "" {
		var err error
		if skey, vkey, err = note.GenerateKey(nil, "go.example/log"); err != nil {
			return err
		}
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	msg, err := note.Sign(&note.Note{Text: r.Text}, s)
	a.Text, a.Skey, a.Vkey = string(msg), skey, vkey
	return err
}

// witness is a verifier of C2SP cosignature/v1, given to Go's note.Open beside the log's own.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }
func (w *witness) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	signed := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(w.key, signed, sig[8:])
}

func cosignature(msg, vkey, witnessKey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	parts := strings.SplitN(witnessKey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return errors.New("not a cosignature key")
	}
	sum := sha256.Sum256([]byte(parts[0] + "\n" + string(key)))
	w := &witness{parts[0], binary.BigEndian.Uint32(sum[:]), ed25519.PublicKey(key[1:])}
	n, err := note.Open([]byte(msg), note.VerifierList(v, w))
	if err == nil && len(n.Sigs) != 2 {
		err = fmt.Errorf("%d verified signatures", len(n.Sigs))
	}
	return err
}

func hash(data []byte) (h tlog.Hash) {
	if len(data) != len(h) {
		panic("bad hash length")
	}
	copy(h[:], data)
	return h
}

func hashes(data [][]byte) (list tlog.RecordProof) {
	for _, d := range data {
		list = append(list, hash(d))
	}
	return list
}

func checkpoint(msg, vkey string) (tree tlog.Tree, err error) {
	n, err := open(msg, vkey)
	if err != nil {
		return tree, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != strings.SplitN(vkey, "+", 2)[0] {
		return tree, errors.New("malformed checkpoint")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func bundle(text, vkey string, a *answer) error {
	head, rest, ok := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("malformed proof")
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	index, ok2 := strings.CutPrefix(lines[2], "index ")
	entry, err1 := base64.StdEncoding.DecodeString(extra)
	at, err2 := strconv.ParseInt(index, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return errors.New("malformed proof")
	}
	var path tlog.RecordProof
	for _, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		path = append(path, h)
	}
	tree, err := checkpoint(rest, vkey)
	if err != nil {
		return err
	}
	a.Text = string(entry)
	return tlog.CheckRecord(path, tree.N, tree.Hash, at, tlog.RecordHash(entry))
}

// files reads C2SP tlog-tiles from a folder: Go's own paths, without the tile height and with "entries" for "data".
type files string

func (f files) Height() int                         { return 8 }
func (f files) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (f files) path(t tlog.Tile) string {
	path := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
	return filepath.Join(string(f), strings.Replace(path, "tile/data/", "tile/entries/", 1))
}

func (f files) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		content, err := os.ReadFile(f.path(t))
		if err != nil {
			return nil, err
		}
		data = append(data, content)
	}
	return data, nil
}

func (f files) tree(vkey string) (tlog.Tree, tlog.HashReader, error) {
	msg, err := os.ReadFile(filepath.Join(string(f), "checkpoint"))
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	tree, err := checkpoint(string(msg), vkey)
	return tree, tlog.TileHashReader(tree, f), err
}

// folder checks every tile and every entry of an exported log against its checkpoint.
func folder(dir, vkey string, a *answer) error {
	f := files(dir)
	tree, reader, err := f.tree(vkey)
	if err != nil {
		return err
	}
	var indexes []int64
	for i := range tree.N {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	leaves, err := reader.ReadHashes(indexes)
	if err != nil {
		return err
	}
	i := int64(0)
	for n := int64(0); i < tree.N; n++ {
		width := int(min(256, tree.N-i))
		data, err := os.ReadFile(f.path(tlog.Tile{H: 8, L: -1, N: n, W: width}))
		if err != nil {
			return err
		}
		for range width {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return errors.New("entry bundle cut short")
			}
			end := 2 + int(binary.BigEndian.Uint16(data))
			if tlog.RecordHash(data[2:end]) != leaves[i] {
				return fmt.Errorf("entry %d does not have its hash", i)
			}
			data = data[end:]
			i++
		}
		if !bytes.Equal(data, nil) {
			return errors.New("entry bundle too long")
		}
	}
	a.Text = strconv.FormatInt(i, 10)
	return nil
}

// prove makes a proof from an exported log with Go's code.
func prove(r request, a *answer) error {
	tree, reader, err := files(r.Folder).tree(r.Vkey)
	if err != nil {
		return err
	}
	var path []tlog.Hash
	if r.OldSize > 0 {
		path, err = tlog.ProveTree(tree.N, r.OldSize, reader)
	} else {
		path, err = tlog.ProveRecord(tree.N, r.Index, reader)
	}
	for _, h := range path {
		a.Path = append(a.Path, h[:])
	}
	return err
}
