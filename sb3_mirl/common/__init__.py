"""What any DQN of Stable-Baselines3 can use: checked inputs, gradient steps, replay buffers, exact resume, export."""
