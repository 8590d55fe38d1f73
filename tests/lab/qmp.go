package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"
)

// qmpEnd is why QEMU shut down, in the words of its protocol: "guest-shutdown", "guest-reset", "host-signal", ... (QMP, event SHUTDOWN).
type qmpEnd struct {
	reason string
	err    error
}

// readQMP speaks to QEMU's control socket until it closes, or ctx ends. QEMU waits for it before it starts the guest.
func readQMP(ctx context.Context, socket string) qmpEnd {
	conn, err := dial(ctx, socket)
	if err != nil {
		return qmpEnd{err: fmt.Errorf("QMP: %w", err)}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n")); err != nil {
		return qmpEnd{err: fmt.Errorf("QMP: %w", err)}
	}
	end := qmpEnd{}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var message struct {
			Event string
			Data  struct{ Reason string }
			Error *struct{ Desc string }
		}
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil {
			return qmpEnd{err: fmt.Errorf("QMP: %w", err)}
		}
		if message.Error != nil {
			end.err = fmt.Errorf("QMP: %s", message.Error.Desc)
		}
		if message.Event == "SHUTDOWN" {
			end.reason = message.Data.Reason
		}
	}
	return end
}

// dialDeadline is how long a program that was just started may take to make its socket.
const dialDeadline = 10 * time.Second

// dial connects to a Unix socket that is about to appear.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialDeadline)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// appears waits until a file is there.
func appears(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, dialDeadline)
	defer cancel()
	for {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
