package resource

import "context"

// Local gives the whole content of a resource that needs no network, verified,
// within DefaultBytesLimit. It fails with [ErrUnreachable] for one that does
// need a network, and otherwise as [Client.Bytes] does.
func (r Resource) Local() ([]byte, error) {
	if r.Remote() {
		return nil, &Error{What: r.String(), Err: ErrUnreachable, Cause: reason("it needs a network, and must be fetched before")}
	}
	return new(Client).Bytes(context.Background(), r)
}
