"""The algorithm: equations, policies, the class, and when ρ and β move. Read it in the order operators, mirl, callbacks."""
