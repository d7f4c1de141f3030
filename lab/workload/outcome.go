package workload

import (
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A verdict is what a client may conclude from the error of a call.
type verdict struct {
	outcome Outcome
	// answered says that the member itself replied: its connection is good,
	// whatever it said.
	answered bool
}

// judge reads the error of a call. Only what cannot have been proposed,
// or was refused while being applied, has failed; see the package comment.
func judge(err error) verdict {
	if err == nil {
		return verdict{OK, true}
	}
	for _, refused := range []error{
		rpctypes.ErrTooManyRequests,  // before the proposal
		rpctypes.ErrRequestTooLarge,  // before the proposal
		rpctypes.ErrInvalidAuthToken, // before the proposal
		rpctypes.ErrUserEmpty,        // before the proposal, or instead of applying
		rpctypes.ErrPermissionDenied, // instead of applying
		rpctypes.ErrAuthOldRevision,  // instead of applying
		rpctypes.ErrLeaseNotFound,    // instead of applying
	} {
		if errors.Is(err, refused) {
			return verdict{Fail, true}
		}
	}
	message := rpctypes.ErrorDesc(err)
	switch message {
	case rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner):
		return verdict{Fail, true}
	case "raft proposal dropped": // raft.ErrProposalDropped, which etcd passes on as text
		return verdict{Fail, true}
	}
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return verdict{Unknown, true}
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable &&
		(strings.Contains(message, "transport: Error while dialing") ||
			strings.Contains(message, "transport: authentication handshake failed")) {
		// There was no connection to send it on.
		return verdict{Fail, false}
	}
	return verdict{Unknown, false}
}
