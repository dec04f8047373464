"""What a scheduling decision is: state and demand in, integer priorities out.

Shared by the service and the simulator, so a policy sees in production what it saw in training. Needs numpy and
ONNX Runtime only, reads no clock, no network and no environment, and imports nothing else of this project.
"""
