package lab

import (
	"context"
	"os/exec"
	"time"
)

// startTPM runs a TPM 2.0 emulator whose memory is in state (an absolute path) and whose control socket is socket, until stop is
// called or ctx ends. By itself it ends when QEMU lets go of it.
func startTPM(ctx context.Context, state, socket string) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, "setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket, "--terminate")
	stderr := &tail{limit: tailLimit}
	cmd.Stderr = stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, &ProgramError{Program: "swtpm", Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := appears(ctx, socket); err != nil {
		cmd.Process.Kill()
		<-ended
		return nil, &ProgramError{Program: "swtpm", Err: err, Stderr: stderr.String()}
	}
	return func() {
		// It writes its memory when the connection closes; only one that does not end then is killed.
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	}, nil
}
