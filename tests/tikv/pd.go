package main

import (
	"context"
	"io"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	pdclient "github.com/tikv/pd/client"
)

// placement is the part of PD that clients use: members, timestamps, regions, stores, the safe point.
type placement struct {
	pdpb.UnimplementedPDServer
	mock   *tikv.MockPD
	addr   string
	faults *faults
}

func header() *pdpb.ResponseHeader { return &pdpb.ResponseHeader{ClusterId: clusterID} }

func (p *placement) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	url := []string{"http://" + p.addr}
	m := &pdpb.Member{Name: "pd", MemberId: 1, PeerUrls: url, ClientUrls: url}
	return &pdpb.GetMembersResponse{Header: header(), Members: []*pdpb.Member{m}, Leader: m, EtcdLeader: m}, nil
}

// Tso answers a request for n timestamps with the last of them; the client counts backwards.
func (p *placement) Tso(stream pdpb.PD_TsoServer) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := p.faults.stallTimestamps(stream.Context()); err != nil {
			return err
		}
		var physical, logical int64
		for range request.Count {
			physical, logical = tikv.GetTS()
		}
		err = stream.Send(&pdpb.TsoResponse{
			Header: header(), Count: request.Count,
			Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical},
		})
		if err != nil {
			return err
		}
	}
}

func regionResponse(r *pdclient.Region, err error) (*pdpb.GetRegionResponse, error) {
	if err != nil {
		return nil, err
	}
	if r == nil {
		return &pdpb.GetRegionResponse{Header: header()}, nil
	}
	return &pdpb.GetRegionResponse{Header: header(), Region: r.Meta, Leader: r.Leader}, nil
}

func (p *placement) GetRegion(ctx context.Context, r *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return regionResponse(p.mock.GetRegion(ctx, r.RegionKey))
}

func (p *placement) GetRegionByID(ctx context.Context, r *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	return regionResponse(p.mock.GetRegionByID(ctx, r.RegionId))
}

// store is the only one. The address it was made with may be an earlier run's.
func (p *placement) store() *metapb.Store { return &metapb.Store{Id: storeID, Address: p.addr} }

func (p *placement) GetStore(_ context.Context, r *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	if r.StoreId != storeID {
		return &pdpb.GetStoreResponse{Header: header()}, nil
	}
	return &pdpb.GetStoreResponse{Header: header(), Store: p.store()}, nil
}

func (p *placement) GetAllStores(context.Context, *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	return &pdpb.GetAllStoresResponse{Header: header(), Stores: []*metapb.Store{p.store()}}, nil
}

func (p *placement) UpdateGCSafePoint(ctx context.Context, r *pdpb.UpdateGCSafePointRequest) (*pdpb.UpdateGCSafePointResponse, error) {
	point, err := p.mock.UpdateGCSafePoint(ctx, r.SafePoint)
	return &pdpb.UpdateGCSafePointResponse{Header: header(), NewSafePoint: point}, err
}

func (p *placement) GetGCSafePoint(ctx context.Context, _ *pdpb.GetGCSafePointRequest) (*pdpb.GetGCSafePointResponse, error) {
	point, err := p.mock.GetGCSafePoint(ctx)
	return &pdpb.GetGCSafePointResponse{Header: header(), SafePoint: point}, err
}
