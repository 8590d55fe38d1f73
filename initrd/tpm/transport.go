package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerSize  = 10   // TPM_ST, size, TPM_RC: TPM 2.0 Library Part 1, command and response headers
	maxResponse = 4096 // TPM_BUFSIZE of the kernel, and more than any TPM's TPM_PT_MAX_RESPONSE_SIZE
)

// A conn carries one command at a time to a TPM and its response back.
type conn interface {
	// transmit returns a whole response, header included. The error is a
	// *unsentError if the TPM has certainly not seen the command. It returns
	// when ctx ends, with the context's error.
	transmit(ctx context.Context, command []byte) ([]byte, error)
	Close() error
}

// unsentError: the command never reached the TPM.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// errUnanswered is what a device says after a command that it did not answer:
// whatever it says next may be that answer.
var errUnanswered = errors.New("an earlier command was not answered")

// responseSize checks a response header and returns the size that it announces.
func responseSize(header []byte) (int, error) {
	size := binary.BigEndian.Uint32(header[2:6])
	if size < headerSize || size > maxResponse {
		return 0, fmt.Errorf("response announces %d bytes, not %d to %d", size, headerSize, maxResponse)
	}
	return int(size), nil
}

// socketConn speaks to an emulator such as swtpm(8) over a Unix socket. It
// connects for each command, since an emulator serves one connection at a time
// and other programs want their turn.
type socketConn struct{ path string }

func (c socketConn) transmit(ctx context.Context, command []byte) ([]byte, error) {
	s, err := c.dial(ctx)
	if err != nil {
		return nil, &unsentError{err}
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	response, err := exchangeStream(s, command)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return response, err
}

func (c socketConn) dial(ctx context.Context) (net.Conn, error) {
	for {
		s, err := new(net.Dialer).DialContext(ctx, "unix", c.path)
		// A Unix socket with a full queue refuses a connect that does not
		// block instead of making it wait.
		if !errors.Is(err, unix.EAGAIN) {
			return s, err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (socketConn) Close() error { return nil }

func exchangeStream(s io.ReadWriter, command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(s, header); err != nil {
		return nil, fmt.Errorf("response header: %w", err)
	}
	size, err := responseSize(header)
	if err != nil {
		return nil, err
	}
	response := append(header, make([]byte, size-headerSize)...)
	if _, err := io.ReadFull(s, response[headerSize:]); err != nil {
		return nil, fmt.Errorf("response of %d bytes: %w", size, err)
	}
	return response, nil
}

// deviceConn speaks to the kernel's TPM device, opened with O_NONBLOCK: then a
// kernel thread executes the command and no signal to this process can disturb
// it. Even so poll(2) waits in the kernel, and cannot be interrupted, while that
// thread holds the device; so the exchange runs in a goroutine which is left
// behind when time is up. The driver's own time limits end it.
type deviceConn struct {
	fd         int  // -1 when closed, or left to an exchange that has failed
	closed     bool // by Close
	unanswered bool // an exchange has failed
}

func (c *deviceConn) transmit(ctx context.Context, command []byte) ([]byte, error) {
	switch {
	case c.closed:
		return nil, &unsentError{net.ErrClosed}
	case c.unanswered:
		return nil, &unsentError{errUnanswered}
	}
	type answer struct {
		response []byte
		err      error
	}
	done := make(chan answer, 1)
	fd := c.fd
	go func() {
		response, err := exchangeDevice(ctx, fd, command)
		done <- answer{response, err}
		if err != nil {
			// Here, since a close waits for a command that is still executed.
			_ = unix.Close(fd)
		}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			c.unanswered, c.fd = true, -1
		}
		return a.response, a.err
	case <-ctx.Done():
		c.unanswered, c.fd = true, -1
		go func() {
			// An answer that came all the same leaves the closing to us.
			if a := <-done; a.err == nil {
				_ = unix.Close(fd)
			}
		}()
		return nil, ctx.Err()
	}
}

func (c *deviceConn) Close() error {
	c.closed = true
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

func exchangeDevice(ctx context.Context, fd int, command []byte) ([]byte, error) {
	n, err := retryInterrupted(ctx, func() (int, error) { return unix.Write(fd, command) })
	if err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	if n != len(command) {
		return nil, fmt.Errorf("write: %w: %d of %d bytes", io.ErrShortWrite, n, len(command))
	}
	response := make([]byte, maxResponse)
	for {
		if err := pollReadable(ctx, fd); err != nil {
			return nil, err
		}
		n, err := retryInterrupted(ctx, func() (int, error) { return unix.Read(fd, response) })
		if err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		if n > 0 {
			response = response[:n]
			break
		}
		// The driver reads as empty, not as EAGAIN, while there is no
		// response, and some kernels report it readable all the same.
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	if len(response) < headerSize {
		return nil, fmt.Errorf("response of %d bytes has no header", len(response))
	}
	size, err := responseSize(response)
	if err != nil {
		return nil, err
	}
	if size != len(response) {
		return nil, fmt.Errorf("response of %d bytes announces %d", len(response), size)
	}
	return response, nil
}

// pollReadable waits until fd can be read or ctx ends. A cancelled context is
// noticed within a second.
func pollReadable(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		wait := time.Second
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, max(1, int(wait.Milliseconds())))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n > 0:
			// With POLLERR or POLLHUP alone, read says what is wrong.
			return nil
		}
	}
	return ctx.Err()
}

func retryInterrupted(ctx context.Context, call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// pause waits for d, or until ctx ends, which is an error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
